"""The operator inside the test's process: its own parts on the real API server, with a clock that tests set and a life that they end.

Only Kopf is left out: the same three watches, with the same selectors, deliver to the same Intake. (The process as it is deployed, with
Kopf and SIGKILL, is in `test_operator_life.py`, `test_operator_trouble.py` and `test_crash_points.py`.)
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Self

from finetune_operator import access
from finetune_operator.app import work
from finetune_operator.decide import decide
from finetune_operator.events import Recorder
from finetune_operator.handlers import Intake
from finetune_operator.index import WATCHED, Index
from finetune_operator.kinds import FINE_TUNE_JOB, MANAGED_SELECTOR, Kind
from finetune_operator.kube import ApiServer, Kube
from finetune_operator.model import Key, Manifest
from finetune_operator.observe import Observer
from finetune_operator.reconcile import Reconciler
from finetune_operator.relist import Relist
from finetune_operator.workqueue import WorkQueue
from tests.cluster import Cluster

Deliver = Callable[[Kind, str, Manifest], None]


class Clock:
    """The operator's time: the machine's, and as many seconds on as a test says."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Informer:
    """The operator's three watches of one namespace, delivered from threads; whoever comes later hears first of all that is there."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._lock = threading.Lock()
        self._there: dict[str, tuple[Kind, Manifest]] = {}
        self._hearers: list[Deliver] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._follow, args=(kind,), name=f"watch-{kind.plural}") for kind in WATCHED]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def subscribe(self, hear: Deliver) -> None:
        with self._lock:
            for kind, manifest in self._there.values():
                hear(kind, "ADDED", manifest)
            self._hearers.append(hear)

    def unsubscribe(self, hear: Deliver) -> None:
        with self._lock:
            self._hearers.remove(hear)

    def _follow(self, kind: Kind) -> None:
        selectors = {} if kind is FINE_TUNE_JOB else {"labelSelector": MANAGED_SELECTOR}
        version = ""
        while not self._ended.is_set():
            path = kind.path(self._namespace)
            for change, manifest in self._cluster.api.watch(path, version=version, stop=self._ended.is_set, bookmarks=True, **selectors):
                if change == "ERROR":
                    version = ""
                    break
                version = manifest["metadata"]["resourceVersion"]  # a watch that ends goes on where it was
                if change == "BOOKMARK":
                    continue
                with self._lock:
                    uid = manifest["metadata"]["uid"]
                    if change == "DELETED":
                        self._there.pop(uid, None)
                    else:
                        self._there[uid] = (kind, manifest)
                    for hear in self._hearers:
                        hear(kind, change, manifest)


class Stack:
    """Everything that one life of the operator keeps in memory. Made anew, it has started anew."""

    def __init__(self, kube: Kube, clock: Clock) -> None:
        self.index = Index()
        self.queue = WorkQueue[Key](clock=clock.monotonic)
        self.intake = Intake(self.index, self.queue)
        events = Recorder(kube, now=clock.now, instance="finetune-operator")
        self.reconciler = Reconciler(kube, self.index, Observer(kube, self.index, now=clock.now), events, decide)


class TroubleOperator:
    """One operator that serves one namespace, in a thread."""

    def __init__(self, cluster: Cluster, namespace: str, *, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._cluster = cluster
        self._namespace = namespace
        self._informer = Informer(cluster, namespace)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="operator")
        self._stack: Stack | None = None
        self._life: asyncio.Task[None] | None = None
        self._hear: Deliver | None = None

    def __enter__(self) -> Self:
        self._informer.__enter__()
        self._thread.start()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._informer.__exit__(kind, error, trace)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def start(self) -> None:
        """A new life: it knows nothing of those before. Returns when it knows what is there."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(60)

    def kill(self) -> None:
        """Nothing more is done; what it was about to write is not written."""
        asyncio.run_coroutine_threadsafe(self._kill(), self._loop).result(60)

    def stop(self) -> None:
        """Kill it, if it lives."""
        if self._life is not None:
            self.kill()

    def advance(self, seconds: float) -> None:
        """Let time pass; whatever is due then is looked at."""
        self.clock.ahead += seconds
        self._loop.call_soon_threadsafe(self._look_at_all)

    def _look_at_all(self) -> None:
        if self._stack is not None:
            for entry in self._stack.index.entries(FINE_TUNE_JOB):
                self._stack.queue.add(Key(entry.namespace, entry.name))

    async def _start(self) -> None:
        ready = asyncio.Event()
        self._life = asyncio.create_task(self._live(ready))
        waits = asyncio.create_task(ready.wait())
        await asyncio.wait({self._life, waits}, return_when=asyncio.FIRST_COMPLETED)
        waits.cancel()
        if self._life.done():
            self._life.result()

    async def _kill(self) -> None:
        assert self._life is not None
        self._life.cancel()
        await asyncio.wait({self._life})
        life, self._life = self._life, None
        if not life.cancelled():
            life.result()

    async def _live(self, ready: asyncio.Event) -> None:
        load = partial(access.load, self._cluster.kubeconfig, None)
        kube = ApiServer(load, user_agent="finetune-operator/test")
        stack = self._stack = Stack(kube, self.clock)

        def hear(kind: Kind, change: str, manifest: Manifest) -> None:
            self._loop.call_soon_threadsafe(stack.intake.deliver, kind, change, manifest)

        self._informer.subscribe(hear)
        # The monotonic clock of the machine: time that a test lets pass must not make a watch look deaf.
        relist = Relist(kube, stack.index, stack.queue, clock=time.monotonic, namespaces=(self._namespace,), period=2.0)
        try:
            async with asyncio.TaskGroup() as parts:
                parts.create_task(relist.run())
                for _ in range(4):
                    parts.create_task(work(stack.queue, stack.reconciler, relist.ready))
                await relist.ready.wait()
                ready.set()
        finally:
            self._informer.unsubscribe(hear)
            self._stack = None
            await kube.close()
