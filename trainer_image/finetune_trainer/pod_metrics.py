"""`/metrics` of a pod, where its runtime gives it a port: what the trainer reports, at the moment of a scrape, from a thread of its own.

The training thread stores two dicts and does nothing else. One thread answers, one connection after the other and ten a second at most, each
within seconds: whoever reaches the port can keep others from their scrape, and nothing from the training. A port that is taken costs a
line of the log.
"""

from __future__ import annotations

import logging
import math
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from finetune_api import telemetry
from finetune_api.telemetry import PodMetric
from finetune_api.wire import Activity
from finetune_trainer.gpu import gpu_figures
from finetune_trainer.pulse import PULSE, Pulse

log = logging.getLogger("finetune_trainer")
PATH: Final = "/metrics"
PATIENCE: Final = 5.0
"""Seconds that a connection may let its thread wait."""
PAUSE: Final = 0.1
"""Seconds between two answers."""


class PodMetrics(Collector):
    """A Reporter, and what a scrape is answered with."""

    def __init__(self, *, gpu: Callable[[], dict[str, int]] = gpu_figures, pulse: Pulse = PULSE) -> None:
        self._gpu = gpu
        self._pulse = pulse
        self._newest: tuple[Activity, Mapping[str, Any]] | None = None
        self._training: Mapping[str, Any] = {}

    def report(self, activity: Activity, **fields: Any) -> None:
        if activity is Activity.TRAIN:
            # A report that tells of a validation has no loss, and the next tells no validation: each keeps what the other said.
            kept = self._training if self._training.get("stage") == fields.get("stage") else {}
            self._training = {**kept, **fields}
        self._newest = (activity, fields)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Tell what stands now; called by a thread of the server."""
        yield _family(telemetry.BEAT, [((), self._pulse.age())])
        if self._newest is None:
            return
        activity, fields = self._newest
        yield _family(telemetry.ACTIVITY, [((activity.value, fields.get("stage") or "", fields.get("suite") or ""), 1)])
        unit = str(fields.get("unit", "steps"))
        yield _family(telemetry.DONE, [((unit,), fields.get("done"))])
        yield _family(telemetry.TOTAL, [((unit,), fields.get("total"))])
        yield _family(telemetry.NOTICED, [((notice.reason.value,), 1) for notice in fields.get("notices") or []])
        whole = {name: value for name, value in fields.items() if name in ("percent", "eta_seconds")}
        yield from _each(telemetry.FIGURES, {**self._training, **whole})
        measured = self._training.get("metrics") or {}
        stage = str(self._training.get("stage") or "")
        yield _family(telemetry.VALIDATION, [((stage, name), value) for name, value in measured.items()])
        yield from _each(telemetry.GPU, self._gpu())


class Server(HTTPServer):
    """On every address of the pod, of both families. Nobody is asked for the host's name, which HTTPServer looks up."""

    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    timeout = None

    def __init__(self, port: int, metrics: PodMetrics) -> None:
        """Raises OSError where the port is taken."""
        self.registry = CollectorRegistry()
        self.registry.register(metrics)
        ProcessCollector(registry=self.registry)
        super().__init__(("", port), _Answer)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever hung up, or waited too long, has no answer."""

    def run(self) -> None:
        """Answer for ever."""
        while True:
            self.handle_request()
            time.sleep(PAUSE)


class _Answer(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server: Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(404)
            return
        body = generate_latest(self.server.registry)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape is no event of a training."""


def serve(port: str) -> PodMetrics | None:
    """Answer `/metrics` on a port until the process ends. None where that can't be: the training goes on without."""
    metrics = PodMetrics()
    try:
        server = Server(int(port), metrics)
    except (OSError, ValueError, OverflowError) as error:
        log.warning("nothing is told at %s (the training goes on): port %s: %s", PATH, port, error)
        return None
    threading.Thread(target=server.run, name="metrics", daemon=True).start()
    return metrics


def _each(metrics: Iterable[PodMetric], fields: Mapping[str, Any]) -> Iterator[GaugeMetricFamily]:
    for metric in metrics:
        value = fields.get(metric.field)
        yield _family(metric, [((), value * metric.factor if value is not None else None)])


def _family(metric: PodMetric, samples: Iterable[tuple[tuple[str, ...], float | None]]) -> GaugeMetricFamily:
    """Without what is not known. A loss that is NaN is told: Prometheus knows it, and whoever looks at it should."""
    family = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
    for labels, value in samples:
        if value is not None and not (isinstance(value, float) and math.isinf(value)):
            family.add_metric(labels, value)
    return family
