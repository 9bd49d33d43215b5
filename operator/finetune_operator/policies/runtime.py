"""Which runtime a job has: the one it started with, whatever has become of it since; before its start, the one that the cluster has now."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from finetune_api import constants as c
from finetune_api.constants import ConditionReason
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_operator.case import Step, needing, refusing
from finetune_operator.model import Manifest, Need, Observed
from finetune_operator.snapshot import RuntimeSnapshot, snapshot_of
from finetune_operator.views import job_views

RETRY_SECONDS = 30.0
"""Runtimes are not watched: a job that has none, or lacks something of it, looks again after this long."""


def resolve(seen: Observed, job: FineTuneJob) -> RuntimeSnapshot | Step:
    """Return the runtime: of the newest Job, else of the status, else of the cluster."""
    started_with = recorded(seen)
    if started_with is not None:
        return started_with
    if seen.runtimes is None:
        return needing(Need.RUNTIMES)
    found = _named(seen.runtimes, job.spec.runtime_ref.name) if job.spec.runtime_ref is not None else _default(seen.runtimes)
    if isinstance(found, Step):
        return found
    try:
        snapshot = RuntimeSnapshot.of(found)
    except ValidationError as error:
        return _invalid(found, f"is not valid: {_said(error)}")
    if len(snapshot.text) > c.MAX_SNAPSHOT:
        return _invalid(found, f"is too large ({len(snapshot.text)} characters as JSON, at most {c.MAX_SNAPSHOT})")
    return snapshot


def recorded(seen: Observed) -> RuntimeSnapshot | None:
    """Return the runtime that the job started with, as its newest Job, or else its status, has it."""
    newest_first = sorted(job_views(seen.job, seen.jobs), key=lambda view: view.manifest["metadata"]["creationTimestamp"], reverse=True)
    told = ((seen.job.get("status") or {}).get("runtime") or {}).get("snapshot")
    found = (*(snapshot_of(view.manifest) for view in newest_first), RuntimeSnapshot.read(told))
    return next((snapshot for snapshot in found if snapshot is not None), None)


def _invalid(runtime: Manifest, words: str) -> Step:
    return refusing(
        ConditionReason.RUNTIME_INVALID,
        f"ClusterFineTuneRuntime {runtime['metadata']['name']} {words}: the platform team must correct it",
        requeue_after=RETRY_SECONDS,
    )


def _named(runtimes: tuple[Manifest, ...], name: str) -> Manifest | Step:
    found = next((runtime for runtime in runtimes if runtime["metadata"]["name"] == name), None)
    if found is not None:
        return found
    there = ", ".join(sorted(runtime["metadata"]["name"] for runtime in runtimes)) or "there is none"
    return refusing(
        ConditionReason.RUNTIME_NOT_FOUND,
        f"spec.runtimeRef.name: there is no ClusterFineTuneRuntime {name} ({there}): write the name of one, or have it made",
        requeue_after=RETRY_SECONDS,
    )


def _default(runtimes: tuple[Manifest, ...]) -> Manifest | Step:
    marked = [runtime for runtime in runtimes if _annotations(runtime).get(c.DEFAULT_RUNTIME_ANNOTATION) == "true"]
    if len(marked) == 1:
        return marked[0]
    if marked:
        names = ", ".join(sorted(runtime["metadata"]["name"] for runtime in marked))
        return refusing(
            ConditionReason.RUNTIME_NOT_UNIQUE,
            f"spec.runtimeRef is left out, and {len(marked)} runtimes are the default ({names}): write runtimeRef.name, or have the "
            f"annotation {c.DEFAULT_RUNTIME_ANNOTATION} taken from all but one",
            requeue_after=RETRY_SECONDS,
        )
    there = ", ".join(sorted(runtime["metadata"]["name"] for runtime in runtimes)) or "there is no runtime at all"
    return refusing(
        ConditionReason.RUNTIME_NOT_FOUND,
        f"spec.runtimeRef is left out, and no ClusterFineTuneRuntime is the default ({there}): write runtimeRef.name, or have one "
        f'annotated {c.DEFAULT_RUNTIME_ANNOTATION}: "true"',
        requeue_after=RETRY_SECONDS,
    )


def _annotations(runtime: Manifest) -> dict[str, Any]:
    return runtime["metadata"].get("annotations") or {}


def _said(error: ValidationError) -> str:
    return "; ".join(f"spec.{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5])
