"""What follows from a manifest's text alone, kept for a while: a job is looked at some ten times in its life, mostly within seconds, and
judging, reading and planning it were most of what each look costs."""

from __future__ import annotations

import functools
from typing import Any, Final

import orjson
from pydantic import ValidationError

from finetune_api import constants as c
from finetune_api.plan import plan
from finetune_api.problem import Problem, Severity
from finetune_api.v1alpha1.fine_tune_job import RULES_APART, FineTuneJob
from finetune_api.validation import validate
from finetune_api.wire import TrainerConfig
from finetune_operator.model import Manifest
from finetune_operator.resources.job import JobParts, plan_runtime
from finetune_operator.snapshot import RuntimeSnapshot

LARGEST: Final = 16_384
"""Bytes of a document that is kept: memory is bounded, whatever users write."""


def document(manifest: Manifest) -> bytes:
    """Return what the user wrote, as JSON: the server's metadata and our status are not the manifest's."""
    metadata: dict[str, Any] = {key: manifest["metadata"][key] for key in ("name", "namespace") if key in manifest["metadata"]}
    return orjson.dumps({"apiVersion": c.API_VERSION, "kind": c.KIND, "metadata": metadata, "spec": manifest.get("spec")})


def read(manifest: Manifest) -> FineTuneJob | None:
    """Return the job without judging it, None where it doesn't read as one."""
    text = document(manifest)
    return _read(text) if len(text) <= LARGEST else _read.__wrapped__(text)


def errors(manifest: Manifest) -> tuple[Problem, ...]:
    """Return what is wrong with the job by its own fields."""
    text = document(manifest)
    return _errors(text) if len(text) <= LARGEST else _errors.__wrapped__(text)


def configs(parts: JobParts) -> tuple[TrainerConfig, ...]:
    """Return what each segment's trainer is told, in order."""
    text = document(parts.manifest)
    if len(text) > LARGEST or parts.job is not _read(text):  # a job that was read from elsewhere has a plan of its own
        return _plan(parts)
    return _configs(text, parts.manifest["metadata"]["uid"], parts.snapshot.text)


@functools.lru_cache(maxsize=256)
def _read(text: bytes) -> FineTuneJob | None:
    try:
        return FineTuneJob.model_validate(orjson.loads(text), context=RULES_APART)
    except ValidationError:
        return None


@functools.lru_cache(maxsize=1024)  # until the first status, which waits for news, a new job is judged at each look
def _errors(text: bytes) -> tuple[Problem, ...]:
    return tuple(problem for problem in validate(orjson.loads(text))[1] if problem.severity is Severity.ERROR)


@functools.lru_cache(maxsize=256)
def _configs(text: bytes, uid: str, runtime: str) -> tuple[TrainerConfig, ...]:
    job, snapshot, metadata = _read(text), RuntimeSnapshot.read(runtime), orjson.loads(text)["metadata"]
    if job is None or snapshot is None:
        raise ValueError("what was read a moment ago can't be read")
    return _plan(JobParts({"metadata": {**metadata, "uid": uid}}, job, snapshot))


def _plan(parts: JobParts) -> tuple[TrainerConfig, ...]:
    return tuple(plan(parts.job, runtime=plan_runtime(parts)).segments)
