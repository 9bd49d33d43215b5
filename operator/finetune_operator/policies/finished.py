"""A job that has ended: nothing is done any more, but to read what a user asks for, and to delete it when its time to live is over."""

from __future__ import annotations

import math

from finetune_api.constants import ConditionType
from finetune_operator.model import Decision, Delete, Observed
from finetune_operator.policies.reading import answer_request
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
    """Keep the status, but for the generation that it speaks of and the last request to read; delete the job when its time is over."""
    metadata, status = seen.job["metadata"], {**seen.job["status"], "observedGeneration": seen.job["metadata"].get("generation")}
    ttl = (seen.job.get("spec") or {}).get("ttlSecondsAfterFinished")
    since = parse_time((condition(seen.job, ConditionType.FINISHED) or {}).get("lastTransitionTime"))
    left = ttl - max(0.0, (seen.now - since).total_seconds()) if ttl is not None and since is not None else None
    if left is not None and left <= 0:
        return Decision(actions=(Delete("FineTuneJob", metadata["name"], metadata["uid"]),))
    answer = answer_request(seen)
    if answer is None:
        return Decision(status=status, requeue_after=left)
    if answer.status is None:
        return Decision(answer.actions, status, requeue_after=min(answer.requeue_after or math.inf, left if left is not None else math.inf))
    return Decision(
        actions=answer.actions,
        status={**status, "lastRead": answer.status},
        notes=(answer.note,) if answer.note is not None else (),
        requeue_after=left,
    )
