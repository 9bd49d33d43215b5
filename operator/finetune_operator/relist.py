"""Compares, on a period, what exists with what the watches delivered: heals what they missed, and knows a watch that went deaf.

A list that works proves nothing about a watch. So each object's resourceVersion in a metadata-only list is held against the one that
the watch delivered: a key that differs is looked at, and where the watch still lacks it 45 s later it is deaf, the liveness probe
fails and the process starts anew. Deletions that were missed are healed, but prove no deafness: a watch that had to list again
delivers none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from finetune_operator.errors import Transient
from finetune_operator.index import WATCHED, Index
from finetune_operator.kinds import CLAIM, FINE_TUNE_JOB, MANAGED_SELECTOR, Kind, uid_of, version_of
from finetune_operator.kube import Kube
from finetune_operator.model import Key, Manifest
from finetune_operator.workqueue import Lane, WorkQueue

log = logging.getLogger(__name__)
LISTED = (*WATCHED, CLAIM)
GRACE = 3.0  # seconds in which the watch delivers by itself what the list just showed
SYNC_MOST = 20.0  # seconds that the first work waits for the watches; without them it only reads more


@dataclass(frozen=True, slots=True)
class Lack:
    """What a list showed and the watch has not delivered: since when. At a start that is everything, so it holds little."""

    kind: Kind
    uid: str
    version: int
    since: float
    manifest: Manifest | None
    """Its metadata, where the index has an older version: what is new has been taken in already."""


class Relist:
    def __init__(
        self,
        kube: Kube,
        index: Index,
        queue: WorkQueue[Key],
        *,
        clock: Callable[[], float],
        namespaces: Iterable[str] = (),
        period: float = 60.0,
        deaf_after: float = 45.0,
        over: Callable[[], object] = lambda: None,
    ) -> None:
        """namespaces: none for the whole cluster. period, deaf_after: seconds. over: is told when lists have been read."""
        self._kube = kube
        self._index = index
        self._queue = queue
        self._clock = clock
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._period = period
        self._deaf_after = deaf_after
        self._over = over
        self._lacks: dict[str, Lack] = {}
        self._compared = clock()
        self.ready = asyncio.Event()
        """Set once what existed at the start is known."""

    async def run(self) -> None:
        """Compare for ever. Raises Refused where the operator may not list at all."""
        await self._start()
        while True:
            await asyncio.sleep(self._period)
            try:
                await self.compare()
                await asyncio.sleep(min(GRACE, self._period))
                self.heal()
                self._over()
            except Transient as error:
                log.warning("the re-list has to wait for the next period: %s", error)

    async def compare(self) -> None:
        """List all four kinds, and remember what the watches lack. What is gone is forgotten at once. Raises KubeError."""
        self._index.gone.clear()
        for kind in LISTED:
            before = {entry.uid for entry in self._index.entries(kind)}
            before -= {uid for namespace in self._namespaces for uid in await self._list(kind, namespace)}
            for uid in before:
                if (gone := self._index.get(uid)) is not None:
                    keys = self._index.keys_of(gone)
                    self._index.drop(uid)
                    if kind is not FINE_TUNE_JOB:
                        self._enqueue(keys)
        self._compared = self._clock()

    def age(self) -> float:
        """Seconds since everything was compared, or since the start."""
        return self._clock() - self._compared

    def heal(self) -> None:
        """Have looked at what the watches still lack."""
        for lack in self.lacking():
            self._note(lack)
            if (entry := self._index.get(lack.uid)) is not None:
                self._enqueue(self._index.keys_of(entry))

    def lacking(self) -> tuple[Lack, ...]:
        """What lists showed and no watch has delivered to this moment. Nothing is lacked of what is gone."""
        for lack in list(self._lacks.values()):
            if not self._is_lacked(lack):
                del self._lacks[lack.uid]
        return tuple(self._lacks.values())

    def deaf(self) -> tuple[str, ...]:
        """The kinds whose watch no longer delivers."""
        now = self._clock()
        return tuple(sorted({lack.kind.plural for lack in self.lacking() if now - lack.since >= self._deaf_after}))

    def behind(self) -> dict[Kind, float]:
        """For how many seconds each watch that lacks something has lacked it."""
        now, found = self._clock(), dict[Kind, float]()
        for lack in self.lacking():
            found[lack.kind] = max(found.get(lack.kind, 0.0), now - lack.since)
        return found

    async def _start(self) -> None:
        """Know every name before the first decision; then give the watches a moment to deliver the bodies."""
        while not self.ready.is_set():
            try:
                await self.compare()
            except Transient as error:
                log.warning("the API server can't be asked yet: %s", error)
                await asyncio.sleep(1)
                continue
            for lack in self.lacking():
                self._note(lack)
            until = self._clock() + SYNC_MOST
            while self._lacks_any() and self._clock() < until:
                await asyncio.sleep(0.5)
            log.info("%d objects are known, %d of them not yet by their watch", len(self._index), len(self.lacking()))
            self._over()
            self.ready.set()

    async def _list(self, kind: Kind, namespace: str | None) -> set[str]:
        labels = "" if kind is FINE_TUNE_JOB else MANAGED_SELECTOR
        found = set()
        async for page in self._kube.pages(kind, namespace, labels=labels, metadata_only=True):
            for manifest in page:
                found.add(uid_of(manifest))
                self._take(kind, manifest)
        return found

    def _take(self, kind: Kind, manifest: Manifest) -> None:
        if kind is CLAIM:  # not watched: this list is how the index knows them
            known = self._index.get(uid_of(manifest)) is not None
            claim = self._index.put(kind, manifest, watched=True)
            if not known:
                self._enqueue(self._index.keys_of(claim))
            return
        if uid_of(manifest) in self._index.gone:  # its end came while the list was on its way: nobody would tell of it again
            return
        # In the index from here on, so that its end is known by its leaving it, whoever hears of that: the watch or the next list.
        entry, version = self._index.get(uid_of(manifest)) or self._index.note(kind, manifest), version_of(manifest)
        if entry.delivered < version:
            metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
            earlier = self._lacks.get(entry.uid)
            since = earlier.since if earlier is not None else self._clock()
            left = {**manifest, "metadata": metadata} if entry.version < version else None
            self._lacks[entry.uid] = Lack(kind, entry.uid, version, since, left)

    def _note(self, lack: Lack) -> None:
        if lack.manifest is not None:
            self._index.note(lack.kind, lack.manifest)

    def _is_lacked(self, lack: Lack) -> bool:
        entry = self._index.get(lack.uid)
        return entry is not None and entry.delivered < lack.version

    def _lacks_any(self) -> bool:
        """Whether anything is lacked: looks no further than the first, since a start asks often."""
        while self._lacks:
            lack = next(iter(self._lacks.values()))
            if self._is_lacked(lack):
                return True
            del self._lacks[lack.uid]
        return False

    def _enqueue(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if not self._index.settled(key):
                self._queue.add(key, Lane.NEW)
