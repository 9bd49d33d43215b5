"""The operator's parts in one TaskGroup: watches, workers, re-list, probes. Crash-only: a part that dies ends the process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version

import kopf
from kubernetes.aio.client import Configuration

from finetune_api import constants as c
from finetune_operator import access, probes
from finetune_operator.clock import Clock
from finetune_operator.errors import Conflict, SettingsError, Transient, Waiting
from finetune_operator.events import Recorder
from finetune_operator.follow import follow
from finetune_operator.handlers import Intake, watch
from finetune_operator.index import CHILDREN, Index
from finetune_operator.kinds import FINE_TUNE_JOB, RUNTIME
from finetune_operator.kube import ApiServer
from finetune_operator.memory import give_back
from finetune_operator.metrics.assembly import Metrics
from finetune_operator.metrics.instruments import Instruments
from finetune_operator.model import Key
from finetune_operator.observe import Observer
from finetune_operator.progress.part import Progress
from finetune_operator.reconcile import Decide, Reconciler
from finetune_operator.relist import Relist
from finetune_operator.settings import Settings
from finetune_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)
START_SECONDS = 2.0  # between two questions to an API server that is away at the start
LAST_WORK = 10.0  # seconds that a stop waits for what is being written


async def run(settings: Settings, decide: Decide) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        ExceptionGroup: A part died; of a SettingsError where the API server can't be reached like that, or doesn't know our kinds.
    """
    load = partial(access.load, settings.kubeconfig, settings.context)
    clock = Clock(wall=now)
    metrics = Metrics(version=version("finetune-operator"), clock=time.monotonic, now=clock.now)
    agent = f"finetune-operator/{version('finetune-operator')}"
    kube = ApiServer(load, user_agent=agent, asked=metrics.instruments.asked, heard=clock.hear)
    try:
        await _run(settings, decide, kube, load, metrics, clock.now)
    finally:
        await kube.close()


async def _run(
    settings: Settings,
    decide: Decide,
    kube: ApiServer,
    load: Callable[[], Awaitable[Configuration]],
    metrics: Metrics,
    now: Callable[[], datetime],
) -> None:
    index, queue, instruments = Index(metrics.ledger), WorkQueue[Key](clock=time.monotonic), metrics.instruments
    recorder = Recorder(kube, now=now, instance=settings.identity)
    progress = Progress(settings.progress, kube, index, queue, now=now)
    observer = Observer(kube, index, now=now, live=progress.live.of, endpoint=progress.endpoint)
    reconciler = Reconciler(kube, index, observer, recorder, decide, instruments.told, progress.live.told)
    relist = Relist(
        kube,
        index,
        queue,
        clock=time.monotonic,
        namespaces=settings.namespaces,
        period=settings.relist_seconds,
        deaf_after=settings.deaf_seconds,
        over=give_back(),
    )

    async def credentials() -> kopf.ConnectionInfo:
        return await access.for_kopf(await load())

    known, intake = asyncio.Event(), Intake(index, queue, instruments.heard)
    where: tuple[str | None, ...] = settings.namespaces or (None,)

    async def compare() -> None:
        await _check_served(kube)
        await relist.run()

    async def begin() -> None:
        await progress.begin()
        await relist.ready.wait()
        known.set()

    async with asyncio.TaskGroup() as parts:
        # Before the watches: Kopf takes every task that begins after it for one of its own, and ends it.
        workers = [parts.create_task(work(queue, reconciler, known, instruments)) for _ in range(settings.workers)]
        others = [
            parts.create_task(compare()),
            parts.create_task(probes.serve(relist, settings.probes_port)),
            parts.create_task(begin()),
            parts.create_task(progress.run()),
            parts.create_task(metrics.serve(settings.metrics_port, queue, relist, index)),
            *(parts.create_task(follow(kube, kind, namespace, intake)) for kind in CHILDREN for namespace in where),
        ]
        await parts.create_task(watch(intake, settings.namespaces, credentials))
        queue.close()
        await asyncio.wait(workers, timeout=LAST_WORK if known.is_set() else 0)
        for part in (*workers, *others):
            part.cancel()


async def work(queue: WorkQueue[Key], reconciler: Reconciler, ready: asyncio.Event, instruments: Instruments | None = None) -> None:
    """Reconcile keys until the queue is closed. No key's failure ends the operator: it comes back after its back-off."""
    await ready.wait()
    while (key := await queue.get()) is not None:
        began, result = time.monotonic(), "error"
        if instruments is not None:
            instruments.taken(key, queue.waited(key))
        try:
            again = await reconciler.reconcile(key)
        except (Conflict, Transient, Waiting) as error:
            result = type(error).__name__.lower()
            log.info("%s/%s: again in %.1f s: %s", *key, queue.retry(key), error)
        except Exception:
            log.exception("%s/%s: again in %.1f s", *key, queue.retry(key))
        else:
            result = "done"
            queue.forget(key)
            if again is not None:
                queue.add_after(key, again)
        finally:
            if instruments is not None:
                instruments.looked_at(key, result, time.monotonic() - began)
            queue.done(key)


def now() -> datetime:
    return datetime.now(UTC)


async def _check_served(kube: ApiServer) -> None:
    """Make sure that our kinds are there. An API server that is away is waited for: a restart is no cure, and the next ones come ever later."""
    while True:
        try:
            served = await kube.served(c.API_VERSION)
            break
        except Transient as error:
            log.warning("the API server can't be asked yet: %s", error)
            await asyncio.sleep(START_SECONDS)
    missing = {FINE_TUNE_JOB.plural, RUNTIME.plural} - served
    if missing:
        raise SettingsError([f"the API server does not know {name}.{c.GROUP}: apply the CRDs first (crds/)" for name in sorted(missing)])
