"""What the API server refused in this very reconcile: said, and tried again later, since only somebody else can mend it."""

from __future__ import annotations

from finetune_api.constants import ConditionReason
from finetune_operator.case import Case, Step, refusing, waiting
from finetune_operator.model import Refusal

RETRY_SECONDS = 30.0
_INVALID = (400, 422)
_BY_A_RULE = ("denied request", "denied the request")
"""Of a policy and of a webhook, whose answers may have the code of an invalid object too."""


def refused(case: Case) -> Step | None:
    """Say which write was refused, and why."""
    if not case.seen.refusals:
        return None
    refusal = case.seen.refusals[0]
    what = f"{refusal.kind} {refusal.name}"
    if refusal.found is not None or refusal.code == 409:
        return refusing(
            ConditionReason.NAME_TAKEN,
            f"{what} is there and is not of this job: delete it, or make this job under another name",
            requeue_after=RETRY_SECONDS,
        )
    if is_terminating(refusal):
        return waiting(ConditionReason.NAMESPACE_TERMINATING, "the namespace is being deleted, and nothing can be made in it any more")
    if "exceeded quota" in refusal.message:
        words = f"{what} was refused by a ResourceQuota (wait until others end, or have it raised): {refusal.message}"
        return waiting(ConditionReason.QUOTA_EXCEEDED, words, requeue_after=RETRY_SECONDS)
    if refusal.code in _INVALID and not any(words in refusal.message for words in _BY_A_RULE):
        name = case.parts.snapshot.name
        return refusing(
            ConditionReason.RUNTIME_INVALID,
            f"{what} is not valid with the ClusterFineTuneRuntime {name}: {refusal.message}: the platform team must correct it",
            requeue_after=RETRY_SECONDS,
        )
    words = f"{what} was refused (whoever made the rule must admit it, or the platform team change the runtime): {refusal.message}"
    return refusing(ConditionReason.ADMISSION_REFUSED, words, requeue_after=RETRY_SECONDS)


def is_terminating(refusal: Refusal) -> bool:
    """Whether a namespace on its way out refused it, or is gone."""
    return "being terminated" in refusal.message or (refusal.code == 404 and "namespaces" in refusal.message)
