"""The next Job: of the first segment that is not done, numbered after every one that was seen."""

from __future__ import annotations

from finetune_api.constants import AttemptReason, ConditionReason
from finetune_api.v1alpha1.status import Phase
from finetune_operator.case import LOOK_AGAIN_SECONDS, Case, Step, delete_job, segment_word
from finetune_operator.model import Create
from finetune_operator.policies.watch import starting
from finetune_operator.resources.claim import build_claim
from finetune_operator.resources.job import build_job


def start(case: Case) -> Step | None:
    """Make it, with the claim before the first one."""
    config = case.current
    if config is None:
        return None
    if case.is_leaving:
        names = ", ".join(sorted(pod.name for pod in case.leaving)) or "its last Job"
        return Step(Phase.PENDING, ConditionReason.STOPPING, f"waits until {names} is gone", requeue_after=LOOK_AGAIN_SECONDS, quiet=True)
    template, claim = case.runtime.storage.claim_template, case.seen.claim
    if template is not None and claim is not None and claim["metadata"].get("deletionTimestamp"):
        name = claim["metadata"]["name"]
        return Step(
            Phase.PENDING,
            ConditionReason.CLAIM_TERMINATING,
            f"claim {name} with the run folder is being deleted: the job begins anew on a new one when it is gone",
            actions=tuple(delete_job(job) for job in case.jobs),  # Kubernetes keeps a claim for pods that have ended, too
            requeue_after=LOOK_AGAIN_SECONDS,
        )
    claims = [Create(build_claim(case.seen.job, case.parts.job, template))] if template is not None and claim is None else []
    index = config.segment.index
    seen = [job.identity.number for job in case.jobs if job.identity.segment == index]
    number = 1 + max([*seen, case.history.highest(index)])
    again = any(attempt.reason != AttemptReason.SUCCEEDED for attempt in case.history.of(index))
    message = f"{segment_word(config)}: attempt {number} begins" + (", from the newest checkpoint that is whole" if again else "")
    return starting(ConditionReason.STARTING, message, *claims, Create(build_job(case.parts, config, number)))
