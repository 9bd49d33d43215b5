"""`python -m finetune_api.crd`: write what is generated from the models, the CustomResourceDefinitions and the references of their fields."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from finetune_api import constants as c
from finetune_api.kinds import KINDS, Kind
from finetune_api.methods_page import PAGE, methods_page
from finetune_api.reference import reference
from finetune_api.schema import structural_schema
from finetune_api.yaml_text import to_yaml

HEADER: Final = "# Generated from operator/finetune_api by `make generate`: change the models, not this file.\n"


def custom_resource_definition(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    columns = [
        {
            "name": column.name,
            "type": column.type,
            "jsonPath": column.path,
            "description": column.description,
            **({"priority": column.priority} if column.priority else {}),
        }
        for column in kind.columns
    ]
    version = {
        "name": c.VERSION,
        "served": True,
        "storage": True,
        **({"subresources": {"status": {}}} if kind.has_status else {}),
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": structural_schema(kind)},
    }
    names = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.name.lower(),
        "shortNames": [kind.short_name],
        "categories": [c.CATEGORY],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{c.GROUP}"},
        "spec": {"group": c.GROUP, "scope": kind.scope, "names": names, "versions": [version]},
    }


def path_of(kind: Kind) -> str:
    """Return where a kind's definition lies in the repository."""
    return f"crds/{c.GROUP}_{kind.plural}.yaml"


def generated() -> dict[str, str]:
    """Return the text of every generated file, by its path in the repository."""
    definitions = {path_of(kind): HEADER + to_yaml(custom_resource_definition(kind)) for kind in KINDS}
    return definitions | {kind.page: reference(kind) for kind in KINDS} | {PAGE: methods_page()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write every generated file below the folder that is given."""
    parser = argparse.ArgumentParser(description="Write the CustomResourceDefinitions and the references of their fields.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="the repository's folder (default: this one)")
    root: Path = parser.parse_args(arguments).root
    for name, text in generated().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
