"""From Kopf's events to the work queue, and nothing else: no handler reads, writes or decides, so none can fail.

Only `on.event`: anything else of Kopf's writes to the object or puts a finalizer on it, and a job that can't be deleted while the
operator is down keeps its GPUs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from finetune_api import constants as c
from finetune_operator.follow import Backoffs
from finetune_operator.index import Entry, Index, is_live
from finetune_operator.kinds import FINE_TUNE_JOB, Kind, uid_of, version_of
from finetune_operator.model import Key, Manifest
from finetune_operator.workqueue import Lane, WorkQueue


class Intake:
    """Takes in what the watches deliver: into the index, and the keys to look at into the queue."""

    def __init__(self, index: Index, queue: WorkQueue[Key], heard: Callable[[Kind], None] = lambda _: None) -> None:
        """heard: is told of each delivery."""
        self._index = index
        self._queue = queue
        self._heard = heard

    def deliver(self, kind: Kind, change: str | None, manifest: Manifest) -> None:
        """change: ADDED, MODIFIED, DELETED, or None for what a list showed."""
        self._heard(kind)
        known = self._index.get(uid_of(manifest))
        before = known.body if known is not None else None
        if change == "DELETED":
            keys = self._index.keys_of(known) if known is not None and kind is not FINE_TUNE_JOB else frozenset()
            self._index.drop(uid_of(manifest))
        else:
            entry = self._index.put(kind, manifest, watched=True)
            keys = self._index.keys_of(entry)
            if change is not None and len(keys) == 1 and _tells_nothing(entry, manifest, before):
                return  # what a list shows is looked at in any case
        at_work = change != "DELETED" and kind is not FINE_TUNE_JOB and is_live(kind, manifest)
        for key in keys:
            if self._index.matters(key) or (at_work and self._index.settled(key)):
                self._queue.add(key, _lane(kind, manifest))

    def note(self, kind: Kind, manifest: Manifest) -> None:
        """Take in that a child exists, from its metadata alone: where its job is at work it is read when that is looked at."""
        self._heard(kind)
        for key in self._index.keys_of(self._index.note(kind, manifest, watched=True)):
            if self._index.matters(key):
                self._queue.add(key, Lane.RUNNING)


def _tells_nothing(entry: Entry, manifest: Manifest, before: bytes | None) -> bool:
    """Whether nothing is to be decided on what was delivered, beside what was known: of a FineTuneJob, our own status write and what that
    rested on; of a child, what the look that asked for it has seen, or made, and what no decision reads."""
    if entry.kind is FINE_TUNE_JOB:
        return entry.delivered > version_of(manifest) or version_of(manifest) <= entry.written
    return entry.body is not None and entry.body == before


def _lane(kind: Kind, manifest: Manifest) -> Lane:
    """New is a FineTuneJob that has no status of ours yet; its children, and its later changes, are news of what runs."""
    return Lane.NEW if kind is FINE_TUNE_JOB and not (manifest.get("status") or {}).get("conditions") else Lane.RUNNING


def register(registry: kopf.OperatorRegistry, intake: Intake) -> None:
    """Have Kopf watch the FineTuneJobs; their children are followed apart (`follow.py`)."""

    @kopf.on.event(c.GROUP, c.VERSION, c.PLURAL, id=c.PLURAL, registry=registry)
    async def on_event(event: Any, **_: Any) -> None:
        intake.deliver(FINE_TUNE_JOB, event["type"], event["object"])


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf as an informer that writes nothing and keeps little."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # one replica; an overlap of two is harmless
    settings.posting.enabled = False  # Events are ours
    settings.scanning.disabled = True  # no right on CRDs and namespaces is needed
    # When they are used up Kopf gives up its watch for good: by default after a minute of an API server that answers 503.
    settings.networking.error_backoffs = Backoffs()
    settings.networking.connect_timeout, settings.networking.request_timeout = 10, 30
    settings.watching.connect_timeout, settings.watching.server_timeout, settings.watching.client_timeout = 10, 600, 630
    # How much of a list is in memory at once: a chunk, and what the tasks of its objects hold until they end.
    settings.watching.chunk_size = 100
    settings.queueing.idle_timeout = 0.1
    settings.persistence.finalizer = f"{c.GROUP}/finalizer"  # in case that one ever appears
    settings.persistence.diffbase_storage = NoDiffs()
    return settings


class NoDiffs(kopf.DiffBaseStorage):
    """No handler asks what changed since; the default copies the whole object at each event to find out."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: kopf.Body) -> None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        return None


class NoMemories(ResourceMemories):
    """No handler asks what was before; the default keeps three kilobytes of each object, for good where no watch told of its end."""

    async def recall(self, raw_body: kopf.RawBody, **how: Any) -> ResourceMemory:
        return await super().recall(raw_body, **{**how, "ephemeral": True})


async def watch(intake: Intake, namespaces: tuple[str, ...], credentials: Callable[[], Awaitable[kopf.ConnectionInfo]]) -> None:
    """Deliver events until SIGTERM or SIGINT. namespaces: none for the whole cluster. Raises whatever ends a watch for good."""
    registry = kopf.OperatorRegistry()
    register(registry, intake)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await credentials()

    await kopf.operator(
        registry=registry, settings=kopf_settings(), memories=NoMemories(), clusterwide=not namespaces, namespaces=namespaces
    )
