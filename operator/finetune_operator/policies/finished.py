"""A job that has ended: nothing is done any more, but to delete it when its time to live is over."""

from __future__ import annotations

from finetune_api.constants import ConditionType
from finetune_operator.model import Decision, Delete, Observed
from finetune_operator.views import PodView, condition, holds, job_views, parse_time


def is_finished(seen: Observed) -> bool:
    """Whether the status says so and no Job contradicts it: a status can be written by others too."""
    if not holds(seen.job, ConditionType.FINISHED) or not (
        holds(seen.job, ConditionType.COMPLETE) or holds(seen.job, ConditionType.FAILED)
    ):
        return False
    at_work = any(not job.over and not job.deleting for job in job_views(seen.job, seen.jobs))
    return not at_work and all(PodView(pod).over for pod in seen.pods)


def after_finish(seen: Observed) -> Decision:
    """Keep the status, but for the generation that it speaks of; delete the job when its time to live is over."""
    metadata, status = seen.job["metadata"], {**seen.job["status"], "observedGeneration": seen.job["metadata"].get("generation")}
    ttl = (seen.job.get("spec") or {}).get("ttlSecondsAfterFinished")
    since = parse_time((condition(seen.job, ConditionType.FINISHED) or {}).get("lastTransitionTime"))
    if ttl is None or since is None:
        return Decision(status=status)
    left = ttl - max(0.0, (seen.now - since).total_seconds())
    if left > 0:
        return Decision(status=status, requeue_after=left)
    return Decision(actions=(Delete("FineTuneJob", metadata["name"], metadata["uid"]),))
