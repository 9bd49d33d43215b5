"""What follows from a manifest's text alone, kept for a while: a job is looked at some ten times in its life, mostly within seconds, and
reading and planning it were half of what each look costs."""

from __future__ import annotations

import functools
from typing import Any, Final

import orjson
from pydantic import ValidationError

from finetune_api import constants as c
from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import RULES_APART, FineTuneJob
from finetune_api.wire import TrainerConfig
from finetune_operator.model import Manifest

KEPT: Final = 256
"""Jobs; some ten kilobytes each."""


def document(manifest: Manifest) -> bytes:
    """Return what the user wrote, as JSON: the server's metadata and our status are not the manifest's."""
    metadata: dict[str, Any] = {key: manifest["metadata"][key] for key in ("name", "namespace") if key in manifest["metadata"]}
    return orjson.dumps({"apiVersion": c.API_VERSION, "kind": c.KIND, "metadata": metadata, "spec": manifest.get("spec")})


@functools.lru_cache(maxsize=KEPT)
def read(text: bytes) -> FineTuneJob | None:
    """Return a document as a job without judging it, None where it doesn't read as one."""
    try:
        return FineTuneJob.model_validate(orjson.loads(text), context=RULES_APART)
    except ValidationError:
        return None


def configs(manifest: Manifest, job: FineTuneJob, runtime: Runtime) -> tuple[TrainerConfig, ...]:
    """Return what each segment's trainer is told, in order. `job` is the manifest, read."""
    text = document(manifest)
    # Whoever read another job from this manifest (with defaults of its own, say) gets the plan of that.
    return _configs(text, runtime.model_dump_json()) if job is read(text) else tuple(plan(job, runtime=runtime).segments)


@functools.lru_cache(maxsize=KEPT)
def _configs(text: bytes, runtime: str) -> tuple[TrainerConfig, ...]:
    job = read(text)
    return tuple(plan(job, runtime=Runtime.model_validate_json(runtime)).segments) if job is not None else ()
