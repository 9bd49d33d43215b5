"""Tells what stands at the moment of a scrape: of the queue and the watches, of all jobs, and of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from finetune_operator.index import WATCHED, Index
from finetune_operator.metrics import catalogue
from finetune_operator.metrics.catalogue import KEPT_SECONDS, MOST_JOBS, Metric, Type
from finetune_operator.metrics.figures import Figures, label
from finetune_operator.metrics.instruments import Instruments
from finetune_operator.metrics.ledger import Ledger
from finetune_operator.model import Key
from finetune_operator.relist import LISTED, Relist
from finetune_operator.workqueue import WorkQueue

Family = GaugeMetricFamily | CounterMetricFamily


@dataclass(frozen=True)
class Machinery(Collector):
    """The queue, the watches, the re-list, the index."""

    queue: WorkQueue[Key]
    relist: Relist
    index: Index
    instruments: Instruments

    def collect(self) -> Iterable[Family]:
        """Tell them. Call it in the thread of the operator's loop."""
        yield _family(catalogue.DEPTH, [((), len(self.queue))])
        yield _family(catalogue.DELAYED, [((), self.queue.delayed())])
        yield _family(catalogue.OLDEST, [((), self.queue.oldest())])
        yield _family(catalogue.WATCH_AGE, [((kind.plural,), self.instruments.silence(kind)) for kind in WATCHED])
        behind = self.relist.behind()
        yield _family(catalogue.WATCH_LAG, [((kind.plural,), behind.get(kind, 0.0)) for kind in WATCHED])
        yield _family(catalogue.RELIST_AGE, [((), self.relist.age())])
        yield _family(catalogue.OBJECTS, [((kind.plural,), len(self.index.entries(kind))) for kind in LISTED])


@dataclass(frozen=True)
class Jobs(Collector):
    """All jobs, and each of at most 2,000 of them."""

    ledger: Ledger
    now: Callable[[], float]
    """Seconds since the epoch."""

    def collect(self) -> Iterable[Family]:
        """Tell them."""
        jobs = tuple(self.ledger.jobs())
        yield from self._together(jobs)
        limit = self.now() - KEPT_SECONDS
        fresh = [(key, each) for key, each in jobs if each.finished is None or each.finished >= limit]
        told = sorted((pair for pair in fresh if pair[1].samples), key=_turn)[:MOST_JOBS]
        yield _family(catalogue.JOBS_UNTOLD, [((), len(fresh) - len(told))])
        yield from _each(told)

    def _together(self, jobs: Iterable[tuple[Key, Figures]]) -> Iterator[Family]:
        phases = Counter((key.namespace, figures.phase) for key, figures in jobs)
        waiting = Counter((key.namespace, label(figures.waiting)) for key, figures in jobs if figures.waiting is not None)
        yield _family(catalogue.JOBS, phases.items())
        yield _family(catalogue.JOBS_WAITING, waiting.items())
        noticed = Counter((key.namespace, reason) for key, figures in jobs for reason in figures.noticed)
        yield _family(catalogue.JOBS_NOTICED, noticed.items())
        totals = self.ledger.totals()
        ends = [((name, "Succeeded"), each.succeeded) for name, each in totals.items()]
        yield _family(catalogue.JOBS_FINISHED, ends + [((name, "Failed"), each.failed) for name, each in totals.items()])
        yield _family(catalogue.GPU_SECONDS, [((name,), each.gpu_seconds) for name, each in totals.items()])
        yield _family(catalogue.GPU_SECONDS_LOST, [((name,), each.gpu_seconds_lost) for name, each in totals.items()])
        yield _family(catalogue.JOBS_FAILED, [((reason,), count) for reason, count in sorted(self.ledger.failures.items())])
        yield _family(catalogue.ATTEMPTS, [((reason,), count) for reason, count in sorted(self.ledger.ends.items())])


def _turn(job: tuple[Key, Figures]) -> float:
    """Sort what has not ended first, then what ended last."""
    return -job[1].finished if job[1].finished is not None else float("-inf")


def _each(jobs: Iterable[tuple[Key, Figures]]) -> list[Family]:
    families = {metric.name: _family(metric, ()) for metric in catalogue.JOB}
    for key, figures in jobs:
        for metric, labels, value in figures.samples:
            families[metric.name].add_metric((*key, *labels), value)
    return list(families.values())


def _family(metric: Metric, samples: Iterable[tuple[tuple[str, ...], float]]) -> Family:
    kind = CounterMetricFamily if metric.type is Type.COUNTER else GaugeMetricFamily
    family: Family = kind(metric.name, metric.text, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family
