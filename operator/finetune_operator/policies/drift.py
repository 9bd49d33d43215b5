"""A Job that was edited by hand. What Kueue edits is Kueue's; without a queue a Job that was stopped, or hidden from our watch, is replaced."""

from __future__ import annotations

from finetune_api import constants as c
from finetune_api.constants import AttemptReason, ConditionReason
from finetune_api.v1alpha1.status import Phase
from finetune_operator.case import Case, Step, delete_job
from finetune_operator.views import JobView


def drifted(case: Case) -> Step | None:
    """Replace the Job that works by the next one, charged as a disruption."""
    job = next(iter(case.live), None)
    changed = _change(case, job) if job is not None else None
    if job is None or changed is None:
        return None
    return Step(
        Phase.PENDING,
        ConditionReason.CLEANING_UP,
        f"Job {job.name} was changed by hand ({changed}), and is replaced",
        actions=(delete_job(job),),
        intents={job.name: AttemptReason.JOB_EDITED},
        requeue_after=10.0,
    )


def _change(case: Case, job: JobView) -> str | None:
    labels = job.manifest["metadata"].get("labels") or {}
    if labels.get(c.MANAGED_LABEL) != "true" or labels.get(c.JOB_UID_LABEL) != case.seen.job["metadata"]["uid"]:
        return f"the label {c.MANAGED_LABEL} or {c.JOB_UID_LABEL}"
    if case.runtime.queue_name is not None:
        return None
    if job.suspended:
        return "spec.suspend: use the FineTuneJob's spec.suspend"
    return "spec.parallelism" if job.manifest["spec"].get("parallelism", 1) != 1 else None
