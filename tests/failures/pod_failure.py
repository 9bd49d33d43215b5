"""A failure of real pods: what brings a job into it, and what somebody who follows the hint does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from finetune_api.constants import ClusterReason, Reason
from tests.cluster.api import Object
from tests.failures.base import Failure, Level, Told
from tests.failures.site import Site
from tests.node.jobs import Job

Play = Callable[[Site], Job]
"""Submits a job, and does to it what is to go wrong."""
Mend = Callable[[Site, Job], Job]
"""Follows the hint; returns the job that must succeed then: the same, or one that was made again."""
Spec = Callable[[Site], Mapping[str, Any]]
OWN: Final = "own"


@dataclass(frozen=True, kw_only=True)
class PodFailure(Failure):
    play: Play
    mend: Mend
    cost: int = 1
    """How long it takes, beside the others: a session of tests takes as many as come to a sum."""

    @property
    def level(self) -> Level:
        return Level.POD


def job(**edits: Any) -> Play:
    """A job with these edits."""
    return lambda site: site.job("tried", **edits)


def again(**edits: Any) -> Mend:
    """The job deleted, and made again with these edits."""
    return lambda site, job: site.again(job, **edits)


def own(spec: Spec, **edits: Any) -> Play:
    """A job whose runtime differs from the plain one in this."""

    def play(site: Site) -> Job:
        site.runtime(OWN, **spec(site))
        return site.job("tried", OWN, **edits)

    return play


def own_again(spec: Spec, **edits: Any) -> Mend:
    """The runtime corrected, and the job made again: one that has started keeps the runtime that it started with."""

    def mend(site: Site, job: Job) -> Job:
        site.runtime(OWN, **spec(site))
        return site.again(job, OWN, **edits)

    return mend


def plainly(site: Site) -> Mapping[str, Any]:
    """The runtime as every other."""
    return {}


def said_of(job: Job, reason: str) -> Told:
    """What the status says, once it says this reason: of its failure, or of what it waits for, where the message is the hint."""
    if reason in {*Reason, *ClusterReason}:
        failure = job.await_failure()
        code = failure.get("exitCode") if reason in {*Reason} else None
        message = f"{failure.get('stage', '')}: {failure['message']}" + (
            f" (exit code {failure['exitCode']})" if "exitCode" in failure else ""
        )
        return Told(failure["reason"], message, failure["hint"], "\n".join(failure.get("lastLogLines", [])), code)

    def stands(_: Object) -> Object | None:
        found = [job.condition(kind) for kind in ("Accepted", "Running")]
        return next((each for each in found if (each.get("status"), each.get("reason")) == ("False", reason)), None)

    condition = job.await_status(stands, f"the reason {reason}")
    return Told(condition["reason"], condition["message"], condition["message"])
