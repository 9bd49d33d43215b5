"""Two jobs must not write one output: the one that began has it, else the older, unless it failed.

Age alone would not do: Kubernetes tells it in whole seconds.
"""

from __future__ import annotations

from finetune_api.constants import ConditionReason
from finetune_api.sources import claim_in
from finetune_operator.case import Case, Step, needing, refusing
from finetune_operator.model import Need, Output, Sibling
from finetune_operator.outputs import folder_of
from finetune_operator.resources.storage import offered_claims

RETRY_SECONDS = 60.0


def free_output(case: Case) -> Step | None:
    """Refuse a job that has not started, while an older one of its namespace has the same output."""
    uri = case.spec.output.uri
    if uri is None or case.started:
        return None
    if case.seen.siblings is None:
        return needing(Need.SIBLINGS)
    offered = {name: claim.claim_name for name, claim in offered_claims(case.parts.job, case.runtime).items()}
    metadata = case.seen.job["metadata"]
    mine, age = _target(uri, offered), (metadata["creationTimestamp"], metadata["uid"])
    for other in sorted(case.seen.siblings, key=_age):
        theirs = other.output
        first = theirs.begun or _age(other) < age
        if first and not theirs.failed and _target(theirs.uri, {**offered, **_claim(theirs)}) == mine:
            return refusing(
                ConditionReason.OUTPUT_TAKEN,
                f"spec.output.uri: the older FineTuneJob {other.name} writes to {theirs.uri} too: write another folder, or "
                "delete that job (its model stays)",
                requeue_after=RETRY_SECONDS,
            )
    return None


def _target(uri: str, claims: dict[str, str]) -> tuple[str, str]:
    """Return the claim and the folder in it."""
    name = claim_in(uri) or ""
    return claims.get(name, name), folder_of(uri)


def _claim(output: Output) -> dict[str, str]:
    return {claim_in(output.uri) or "": output.claim} if output.claim is not None else {}


def _age(job: Sibling) -> tuple[str, str]:
    return (job.output.created, job.uid)
