"""Two jobs must not write one output: the one that began has it, else the older, unless it failed.

Age alone would not do: Kubernetes tells it in whole seconds.
"""

from __future__ import annotations

from finetune_api.constants import ConditionReason, ConditionType
from finetune_operator.case import Case, Step, needing, refusing
from finetune_operator.model import Manifest, Need
from finetune_operator.resources.storage import claim_in, offered_claims
from finetune_operator.views import holds

RETRY_SECONDS = 60.0


def free_output(case: Case) -> Step | None:
    """Refuse a job that has not started, while an older one of its namespace has the same output."""
    uri = case.spec.output.uri
    if uri is None or case.started:
        return None
    if case.seen.siblings is None:
        return needing(Need.SIBLINGS)
    offered = {name: claim.claim_name for name, claim in offered_claims(case.parts.job, case.runtime).items()}
    target = _target(uri, offered)
    for other in sorted(case.seen.siblings, key=_age):
        theirs = ((other.get("spec") or {}).get("output") or {}).get("uri")
        first = _has_begun(other, case.seen.begun) or _age(other) < _age(case.seen.job)
        if theirs is None or not first or holds(other, ConditionType.FAILED):
            continue
        if _target(theirs, {**offered, **_claims(other)}) == target:
            return refusing(
                ConditionReason.OUTPUT_TAKEN,
                f"spec.output.uri: the older FineTuneJob {other['metadata']['name']} writes to {theirs} too: write another folder, or "
                "delete that job (its model stays)",
                requeue_after=RETRY_SECONDS,
            )
    return None


def _has_begun(job: Manifest, begun: frozenset[str]) -> bool:
    return job["metadata"]["uid"] in begun or bool((job.get("status") or {}).get("attempts"))


def _target(uri: str, claims: dict[str, str]) -> tuple[str, str]:
    """Return the claim and the folder in it."""
    name = claim_in(uri) or ""
    folder = "/".join(part for part in uri.removeprefix(f"pvc://{name}").split("/") if part not in ("", "."))
    return claims.get(name, name), folder


def _claims(job: Manifest) -> dict[str, str]:
    references = (job.get("spec") or {}).get("references") or {}
    return {claim["name"]: claim["claimName"] for claim in references.get("claims") or []}


def _age(job: Manifest) -> tuple[str, str]:
    return (job["metadata"]["creationTimestamp"], job["metadata"]["uid"])
