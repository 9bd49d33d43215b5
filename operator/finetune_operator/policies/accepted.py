"""Whether a job can run on this cluster at all: its own fields first, then what it names of its runtime, then whether its output is free."""

from __future__ import annotations

from finetune_api.constants import ConditionReason, ConditionType
from finetune_api.problem import Problem
from finetune_api.sources import claim_in, credentials, uris
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob, Retain
from finetune_operator import parsed
from finetune_operator.case import Case, Step, refusing
from finetune_operator.model import Manifest, Observed
from finetune_operator.policies.runtime import RETRY_SECONDS
from finetune_operator.resources.storage import offered_claims, offered_secrets
from finetune_operator.views import condition

MAX_CONFIG = 200_000
"""Bytes of the config in a pod's annotations, which hold 262,144 in all."""


def parse(seen: Observed) -> FineTuneJob | Step:
    """Return the job as a model, or what is wrong with it. The schema has refused most of this when it was applied.

    What was accepted at this generation is not judged again: the rules are most of what a decision costs, and a later release's stricter
    rule must not end a job that runs.
    """
    if (accepted := _accepted(seen.job)) is not None:
        return accepted
    problems = list(parsed.errors(seen.job))
    job = parsed.read(seen.job) if not problems else None
    if job is not None:
        problems += [
            Problem(
                path, f"{uri}: there is no such folder on a cluster", "use pvc://NAME/PATH, and name the claim in spec.references.claims"
            )
            for path, uri in uris(job.spec)
            if uri.startswith("file://")
        ]
    if job is None or problems:
        return _invalid(problems)
    return job


def runnable(case: Case) -> Step | None:
    """Refuse a job that has not started and names what its runtime does not give it, until the runtime is another one."""
    if case.started:
        return None
    spec, runtime = case.spec, case.runtime
    offered = offered_claims(case.parts.job, runtime)
    names = ", ".join(sorted(offered)) or "there is none"
    problems = [
        Problem(path, f"{uri} names no claim of this job or its runtime ({names})", "add {name, claimName} to spec.references.claims")
        for path, uri in uris(spec)
        if claim_in(uri) is not None and claim_in(uri) not in offered
    ]
    secrets = offered_secrets(case.parts.job, runtime)
    names = ", ".join(sorted(secrets)) or "there is none"
    problems += [
        Problem(path, f"{name} names no Secret of this job or its runtime ({names})", "add {name, secretName} to spec.references.secrets")
        for path, name in credentials(spec)
        if name not in secrets
    ]
    if spec.output.uri is not None and (claim := offered.get(claim_in(spec.output.uri) or "")) is not None and claim.read_only:
        hint = "write to a claim of spec.references.claims"
        problems.append(Problem("spec.output.uri", f"{spec.output.uri}: the runtime gives this claim for reading only", hint))
    if spec.output.retain is Retain.NEVER and (spec.output.uri is not None or runtime.storage.claim_name is not None):
        problems.append(
            Problem(
                "spec.output.retain",
                "Never deletes the artifacts with the job, and they would lie on a claim that is not the job's own",
                "leave retain out; or leave output.uri out, with a runtime that makes a claim for each job",
            )
        )
    size = max(len(config.model_dump_json(exclude_none=True).encode()) for config in case.configs)
    if size > MAX_CONFIG:
        problems.append(Problem("spec", f"the job is too large for a pod's annotation ({size} bytes, at most {MAX_CONFIG})", "shorten it"))
    return _invalid(problems, requeue_after=RETRY_SECONDS) if problems else None


def _accepted(manifest: Manifest) -> FineTuneJob | None:
    """Return the job, if our status says that its present spec was accepted and it still reads as one."""
    said = condition(manifest, ConditionType.ACCEPTED) or {}
    if said.get("status") != "True" or said.get("observedGeneration") != manifest["metadata"].get("generation"):
        return None
    return parsed.read(manifest)


def _invalid(problems: list[Problem], *, requeue_after: float | None = None) -> Step:
    more = f" (and {len(problems) - 5} more: finetune validate shows all)" if len(problems) > 5 else ""
    words = "; ".join(str(problem) for problem in problems[:5]) + more
    return refusing(ConditionReason.INVALID_SPEC, words, requeue_after=requeue_after)
