"""Counts what the operator does. One instance a process, with a registry of its own: nothing here is global."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from finetune_operator.kinds import BY_NAME, NODE, OWN_EVENT, SECRET, Kind
from finetune_operator.metrics import catalogue
from finetune_operator.metrics.catalogue import Metric
from finetune_operator.model import Key

RESULTS: Final = ("done", "conflict", "transient", "waiting", "error")
"""How a look at a job can end."""
PHASES: Final = ("Pending", "Preparing", "Queued", "Running", "Suspending", "Suspended")
"""That a job can leave."""
RESOURCES: Final = frozenset({*(kind.plural for kind in (*BY_NAME.values(), NODE, OWN_EVENT, SECRET)), "tokenreviews"})
DISCOVERY: Final = "discovery"


class Instruments:
    def __init__(self, *, version: str, clock: Callable[[], float]) -> None:
        """clock: seconds, monotonic."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter and histogram, which nobody reads
        self.registry = CollectorRegistry()
        self._clock = clock
        self._began = clock()
        self._since: dict[Key, float] = {}
        self._heard: dict[str, float] = {}
        ProcessCollector(registry=self.registry)
        self._gauge(catalogue.INFO).labels(version).set(1)
        self._wait = self._histogram(catalogue.WAIT)
        self._status_lag = self._histogram(catalogue.STATUS_LAG)
        self._reconcile = self._histogram(catalogue.RECONCILE)
        self._phase = self._histogram(catalogue.PHASE_SECONDS)
        self._requests = self._counter(catalogue.API_REQUESTS)
        self._request_seconds = self._histogram(catalogue.API_SECONDS)
        self._events = self._counter(catalogue.WATCH_EVENTS)
        for result in RESULTS:
            self._reconcile.labels(result)
        for phase in PHASES:
            self._phase.labels(phase)

    def taken(self, key: Key, waited: float) -> None:
        """A worker has taken a key that waited so many seconds."""
        self._since[key] = self._clock() - waited
        self._wait.observe(waited)

    def looked_at(self, key: Key, result: str, seconds: float) -> None:
        """The worker is done with it."""
        self._since.pop(key, None)
        self._reconcile.labels(result).observe(seconds)

    def told(self, key: Key) -> None:
        """A status was written."""
        if key in self._since:
            self._status_lag.observe(self._clock() - self._since[key])

    def left(self, phase: str, seconds: float) -> None:
        """A job left a phase."""
        if phase in PHASES:
            self._phase.labels(phase).observe(seconds)

    def asked(self, verb: str, path: str, code: int, seconds: float) -> None:
        """The API server was asked. path: of the URL; code: 0 where no answer came."""
        self._requests.labels(verb, resource_of(path), str(code)).inc()
        self._request_seconds.labels(verb).observe(seconds)

    def heard(self, kind: Kind) -> None:
        """A watch delivered."""
        self._heard[kind.plural] = self._clock()
        self._events.labels(kind.plural).inc()

    def silence(self, kind: Kind) -> float:
        """Seconds since a watch delivered, or since the start."""
        return self._clock() - self._heard.get(kind.plural, self._began)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.text, metric.labels, registry=self.registry)

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.name, metric.text, metric.labels, registry=self.registry)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(metric.name, metric.text, metric.labels, buckets=metric.buckets, registry=self.registry)


def resource_of(path: str) -> str:
    """Return what a path of the API is about: `jobs`, `finetunejobs/status`; never a name, so that its values are few."""
    parts = path.split("?")[0].strip("/").split("/")
    rest = parts[3:] if parts[0] == "apis" else parts[2:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    if not rest or rest[0] not in RESOURCES:
        return DISCOVERY if not rest else "other"
    return "/".join((rest[0], *rest[2:3]))
