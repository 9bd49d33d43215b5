"""Follows the Jobs and pods that carry our label, as a Kopf watch would, without what Kopf does for each event of an object.

Kopf watches the FineTuneJobs. Of ten events of a job's life, eight are about its Jobs and pods, and are only taken into the index: for those,
Kopf's queue, task, wrappers and causes for each event were a quarter of the operator's time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, Protocol

from finetune_operator.errors import KubeError
from finetune_operator.kinds import JOB, MANAGED_SELECTOR, POD, Kind
from finetune_operator.model import Manifest

CHUNK: Final = 100
"""Objects of a list in memory at once."""
UNFINISHED: Final = {JOB: "status.successful=0", POD: "status.phase!=Succeeded,status.phase!=Failed"}
"""Selectors of fields for all that may still do something, and little else."""
PAUSE: Final = 0.1
LONGEST_BACKOFF: Final = 13.0
"""Seconds between two attempts of a watch at an API server that is away."""
log = logging.getLogger(__name__)


class Source(Protocol):
    def listed(
        self, kind: Kind, namespace: str | None, *, labels: str, fields: str = "", metadata_only: bool = False, chunk: int
    ) -> AsyncIterator[tuple[Sequence[Manifest], str]]: ...

    def changes(self, kind: Kind, namespace: str | None, *, labels: str, since: str) -> AsyncIterator[tuple[str, Manifest]]: ...


class Taker(Protocol):
    """Takes in what is told."""

    def deliver(self, kind: Kind, change: str | None, manifest: Manifest) -> None: ...

    def note(self, kind: Kind, manifest: Manifest) -> None:
        """It exists, at this version: its metadata alone."""


class Backoffs:
    """Without end, and each time from the first. A right that is missing is told by the re-list, which ends the process at once."""

    def __iter__(self) -> Iterator[float]:
        yield from (1, 1, 2, 3, 5, 8)
        while True:
            yield LONGEST_BACKOFF


async def follow(source: Source, kind: Kind, namespace: str | None, taker: Taker) -> None:
    """Deliver for ever: what is there, then each change. Where a watch ends it goes on from the last version that it told, and lists anew
    where that is too old. Deletions that are missed in between are found by the re-list.
    """
    version, backoffs = "", iter(Backoffs())
    while True:
        try:
            if not version:
                version = await _list(source, kind, namespace, taker)
            async for change, manifest in source.changes(kind, namespace, labels=MANAGED_SELECTOR, since=version):
                version, backoffs = manifest["metadata"]["resourceVersion"], iter(Backoffs())
                if change != "BOOKMARK":
                    taker.deliver(kind, change, manifest)
            await asyncio.sleep(PAUSE)  # it has ended as agreed
        except KubeError as error:
            if error.code != 0:  # no broken connection: what it knows may be of no use any more (410)
                version = ""
            delay = next(backoffs)
            log.info("%s are watched again in %.0f s: %s", kind.plural, delay, error)
            await asyncio.sleep(delay)


async def _list(source: Source, kind: Kind, namespace: str | None, taker: Taker) -> str:
    """Note all that is there, and deliver what has not finished whole: thousands of finished ones cost no more than their names. Returns the version
    from which a watch tells all the rest, what finishes between the two lists too: a list that breaks off shows nothing of what comes after it.
    """
    version = ""
    async for page, listed_at in source.listed(kind, namespace, labels=MANAGED_SELECTOR, metadata_only=True, chunk=CHUNK):
        version = listed_at
        for manifest in page:
            taker.note(kind, manifest)
    async for page, _ in source.listed(kind, namespace, labels=MANAGED_SELECTOR, fields=UNFINISHED[kind], chunk=CHUNK):
        for manifest in page:
            taker.deliver(kind, None, manifest)
    return version
