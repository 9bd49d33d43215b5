"""One FineTuneJob, from what is to what should be: observe, decide, apply, one status write, events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from finetune_operator.apply import apply
from finetune_operator.errors import NotFound
from finetune_operator.events import Recorder
from finetune_operator.index import Index, is_live
from finetune_operator.kinds import JOB, POD, is_terminating, uid_of
from finetune_operator.kube import Kube
from finetune_operator.model import Decision, Key, Need, Observed
from finetune_operator.observe import Observer

Decide = Callable[[Observed], Decision]


@dataclass(frozen=True)
class Reconciler:
    kube: Kube
    index: Index
    observer: Observer
    recorder: Recorder
    decide: Decide
    told: Callable[[Key], None] = lambda _: None
    """Is told of each job whose status was written."""
    looked_at: Callable[[str], None] = lambda _: None
    """Is told of each job, by its uid, that was looked at: what its pod reported is in the status, or tells nothing new."""

    async def reconcile(self, key: Key) -> float | None:
        """Bring one job on its way. Returns the seconds after which it must be looked at without an event.

        Nothing is made or deleted that was not decided on what the API server said just now, and no end is told of what may still change. How a
        job goes on, and what came of what is over, is told from the index, which spares most of the reads.

        Raises:
            Conflict: Somebody else wrote the job meanwhile.
            Waiting: Something must be gone first.
            Transient: The API server can't be asked now.
        """
        if self.index.at_rest(key):  # it came to rest while this key waited
            return None
        remembered = self.observer.remember(key)
        if remembered is not None:
            remembered, decision = await self._decide(remembered)
            if decision.only_tells or not writes(remembered, decision) or (not decision.actions and has_ended(remembered)):
                return await self._write(key, remembered, decision)
        observed = await self.observer.read(key)
        if observed is None or is_terminating(observed.job):  # the garbage collector takes the children
            return None
        observed, decision = await self._decide(observed if remembered is None else with_what_was_read(observed, remembered))
        refusals = await apply(self.kube, self.index, observed.job, decision.actions)
        if refusals:
            observed, decision = await self._decide(replace(observed, refusals=refusals))
        return await self._write(key, observed, decision)

    async def _write(self, key: Key, observed: Observed, decision: Decision) -> float | None:
        """The one status write, where there is anything to write; then the events. Returns when to look again, None where the job is gone."""
        if writes_status(observed, decision):
            try:
                written = await self.kube.replace_status(observed.job, decision.status or {})
            except NotFound:  # deleted since it was read
                self.index.drop(uid_of(observed.job))
                return None
            self.told(key)
            self.index.wrote(written)
            await self.recorder.write(written, decision.notes)
        self.looked_at(uid_of(observed.job))
        return decision.requeue_after

    async def _decide(self, observed: Observed) -> tuple[Observed, Decision]:
        """Decide, and read what the decision needs, until it needs nothing more."""
        read: frozenset[Need] = frozenset()
        while (decision := self.decide(observed)).needs:
            if not decision.needs - read:
                raise RuntimeError(f"a decision on {observed.job['metadata']['name']} needs again what was read: {sorted(decision.needs)}")
            observed = await self.observer.add(observed, decision.needs - read)
            read |= decision.needs
        return observed, decision


def writes(observed: Observed, decision: Decision) -> bool:
    return bool(decision.actions) or writes_status(observed, decision)


def has_ended(observed: Observed) -> bool:
    """Whether its Jobs and pods are over, each in a phase that it never leaves: there is no later word to ask for. The status that is written on
    it is guarded by the FineTuneJob's own version."""
    children = [*((JOB, job) for job in (*observed.jobs, *observed.orphans, *observed.readers)), *((POD, pod) for pod in observed.pods)]
    return bool(observed.jobs) and not any(is_live(kind, child) or is_terminating(child) for kind, child in children)


def writes_status(observed: Observed, decision: Decision) -> bool:
    return decision.status is not None and decision.status != observed.job.get("status")


def with_what_was_read(observed: Observed, just_now: Observed) -> Observed:
    """The same with what a decision needed a moment ago, where that was about the same children in the same places. Not the siblings: which
    of two jobs has an output is decided on what is true at this very moment, and costs nothing."""
    if _places(observed) != _places(just_now):
        return observed
    return replace(
        observed,
        runtimes=just_now.runtimes,
        nodes=just_now.nodes,
        pod_nodes=just_now.pod_nodes,
        events=just_now.events,
    )


def _places(observed: Observed) -> list[tuple[str, str | None]]:
    return sorted((uid_of(each), each["spec"].get("nodeName")) for each in (*observed.jobs, *observed.pods))
