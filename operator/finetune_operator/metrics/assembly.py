"""Puts the metrics together for one operator."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry

from finetune_operator.index import Index
from finetune_operator.listen import listen
from finetune_operator.metrics.collectors import Jobs, Machinery
from finetune_operator.metrics.endpoint import application
from finetune_operator.metrics.instruments import Instruments
from finetune_operator.metrics.ledger import Ledger
from finetune_operator.model import Key
from finetune_operator.relist import Relist
from finetune_operator.workqueue import WorkQueue


class Metrics:
    """Everything that is counted and told."""

    def __init__(self, *, version: str, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        """clock: seconds, monotonic. now: with its zone."""
        self.instruments = Instruments(version=version, clock=clock)
        self.ledger = Ledger(now=lambda: now().timestamp(), left=self.instruments.left)
        self.instruments.registry.register(Jobs(self.ledger, lambda: now().timestamp()))

    async def serve(self, port: int, queue: WorkQueue[Key], relist: Relist, index: Index) -> None:
        """Answer /metrics until cancelled. Raises OSError where the port is taken."""
        machinery = CollectorRegistry()
        machinery.register(Machinery(queue, relist, index, self.instruments))

        def moment() -> CollectorRegistry:
            self.ledger.tidy()
            return machinery

        await listen(application(self.instruments.registry, moment), port, what="metrics")
