"""Children that should not be: orphaned by hand, without an owner, or a second Job beside the one that works. One run folder, one trainer."""

from __future__ import annotations

from finetune_api.constants import AttemptReason, ConditionReason
from finetune_api.v1alpha1.status import Phase
from finetune_operator.case import Case, Step, delete_job
from finetune_operator.model import Delete

LOOK_AGAIN_SECONDS = 10.0


def strays(case: Case) -> Step | None:
    """Delete them, and wait until they are gone."""
    orphans = case.seen.orphans
    loose = [pod for pod in case.pods if pod.owner is None and not pod.over]
    superfluous = case.live[1:]
    if not (orphans or loose or superfluous):
        return None
    made = [
        Delete("Job", job["metadata"]["name"], job["metadata"]["uid"]) for job in orphans if not job["metadata"].get("deletionTimestamp")
    ]
    made += [Delete("Pod", pod.name, pod.uid) for pod in loose if pod.deleting_until is None]
    names = [str(job["metadata"]["name"]) for job in orphans] + [pod.name for pod in loose] + [job.name for job in superfluous]
    return Step(
        Phase.PENDING,
        ConditionReason.CLEANING_UP,
        f"{', '.join(sorted(names))} should not be there beside the job's own attempt, and is deleted first",
        actions=(*made, *(delete_job(job) for job in superfluous)),
        intents={job.name: AttemptReason.SUPERFLUOUS for job in superfluous},
        requeue_after=LOOK_AGAIN_SECONDS,
    )
