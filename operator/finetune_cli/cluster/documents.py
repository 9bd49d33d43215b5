"""`-o json|yaml|name`: jobs as kubectl prints them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api import constants as c


def printed(manifests: Sequence[Mapping[str, Any]], output: str, *, single: bool) -> str:
    """The objects in a form for programs. single: one object was asked for by its name, so no list stands around it."""
    if output == "name":
        return "\n".join(name_of(manifest) for manifest in manifests)
    slim = [_slim(manifest) for manifest in manifests]
    document: Any = slim[0] if single else {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": slim}
    if output == "json":
        return json.dumps(document, indent=2, ensure_ascii=False)
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120).rstrip()


def name_of(manifest: Mapping[str, Any]) -> str:
    """`finetunejob.finetune.dev/NAME`, which kubectl takes too."""
    return f"{manifest['kind'].lower()}.{c.GROUP}/{manifest['metadata']['name']}"


def _slim(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Without managedFields, which nobody reads; kubectl leaves them out too."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
    return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], **manifest, "metadata": metadata}
