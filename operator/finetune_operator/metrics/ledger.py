"""Keeps the figures of every FineTuneJob that the index knows, and adds up what changes in them. Without a job, nothing of it is kept.

What stood in a status when it was first seen was counted by an earlier operator: only what is written later adds to a counter. So a restart
counts nothing twice, and loses nothing, since nobody else writes statuses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from finetune_api.constants import AttemptReason, ClusterReason, Reason
from finetune_operator.kinds import key_of
from finetune_operator.metrics.catalogue import KEPT_SECONDS, MOST_JOBS
from finetune_operator.metrics.figures import NEW, Figures, figures_of
from finetune_operator.model import Key, Manifest

OTHER: Final = "Other"
FAILURES: Final = (*map(str, (*Reason, *ClusterReason)), OTHER)
ENDS: Final = (*map(str, AttemptReason), *FAILURES)
"""Reasons for which attempts end: a closed list, whatever a status says."""


@dataclass
class Totals:
    """What a namespace's jobs came to while this operator ran."""

    gpu_seconds: float = 0.0
    gpu_seconds_lost: float = 0.0
    succeeded: int = 0
    failed: int = 0
    jobs: int = 0
    """That are there now."""
    empty_since: float = 0.0


class Ledger:
    def __init__(self, *, now: Callable[[], float], left: Callable[[str, float], None]) -> None:
        """now: seconds since the epoch. left: is told of each phase that a job left, and the seconds that it stayed."""
        self._now = now
        self._left = left
        self._jobs: dict[Key, Figures] = {}
        self._since: dict[Key, float] = {}
        self._totals: dict[str, Totals] = {}
        self._ended: dict[Key, None] = {}  # with samples, the first to end first
        self.failures: Counter[str] = Counter(dict.fromkeys(FAILURES, 0))
        self.ends: Counter[str] = Counter(dict.fromkeys(ENDS, 0))

    def saw(self, job: Manifest) -> None:
        """Take in a job as it stands now."""
        key, new = key_of(job), figures_of(job)
        old = self._jobs.get(key)
        if old is not None and old.uid != new.uid:
            self._forget(key)
            old = None
        totals = self._totals.setdefault(key.namespace, Totals())
        if old is None:
            totals.jobs += 1
            self._since[key] = new.since if new.since is not None else self._now()
        else:
            self._add(key, totals, old, new)
        if new.finished is not None:
            self._since.pop(key, None)
            new = replace(new, ends=frozenset(), samples=new.samples if new.finished >= self._now() - KEPT_SECONDS else ())
        self._jobs[key] = new
        self._bound(key, new)

    def lost(self, namespace: str, name: str, uid: str) -> None:
        """Forget a job that is gone."""
        key = Key(namespace, name)
        if key in self._jobs and self._jobs[key].uid == uid:
            self._forget(key)

    def tidy(self) -> None:
        """Let go of what is no longer told: figures of jobs that ended long ago, totals of namespaces without jobs."""
        limit = self._now() - KEPT_SECONDS
        for key in list(self._ended):
            if (self._jobs[key].finished or 0.0) < limit:
                self._let_go(key)
        for namespace in [name for name, totals in self._totals.items() if not totals.jobs and totals.empty_since < limit]:
            del self._totals[namespace]

    def jobs(self) -> Iterable[tuple[Key, Figures]]:
        """Every job, as it stands at this moment; safe from another thread."""
        return tuple(self._jobs.items())

    def totals(self) -> Mapping[str, Totals]:
        """By namespace; safe from another thread."""
        return dict(self._totals)

    def _bound(self, key: Key, figures: Figures) -> None:
        """Keep the samples of as many ended jobs as can be told at all: those that ended last."""
        if figures.finished is not None and figures.samples:
            self._ended.setdefault(key)
            if len(self._ended) > MOST_JOBS:
                self._let_go(next(iter(self._ended)))
        else:
            self._ended.pop(key, None)

    def _let_go(self, key: Key) -> None:
        del self._ended[key]
        self._jobs[key] = replace(self._jobs[key], samples=())

    def _forget(self, key: Key) -> None:
        del self._jobs[key]
        self._since.pop(key, None)
        self._ended.pop(key, None)
        totals = self._totals[key.namespace]
        totals.jobs -= 1
        totals.empty_since = self._now()

    def _add(self, key: Key, totals: Totals, old: Figures, new: Figures) -> None:
        if new.phase != old.phase:
            now = self._now()
            if old.phase != NEW and key in self._since:
                self._left(old.phase, max(0.0, now - self._since[key]))
            self._since[key] = now
        totals.gpu_seconds += max(0.0, new.gpu_seconds - old.gpu_seconds)
        totals.gpu_seconds_lost += max(0.0, new.gpu_seconds_lost - old.gpu_seconds_lost)
        if old.finished is None:
            known = {end[:2] for end in old.ends}
            self.ends.update(_known(reason, ENDS) for job, pod, reason in new.ends if (job, pod) not in known)
            if new.finished is not None:
                totals.failed += new.failure is not None
                totals.succeeded += new.failure is None
                if new.failure is not None:
                    self.failures[_known(new.failure, FAILURES)] += 1


def _known(reason: str, closed: tuple[str, ...]) -> str:
    return reason if reason in closed else OTHER
