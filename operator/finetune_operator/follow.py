"""Follows the Jobs and pods that carry our label, as a Kopf watch would, without what Kopf does for each event of an object.

Kopf watches the FineTuneJobs. Of ten events of a job's life, eight are about its Jobs and pods, and are only taken into the index: for those,
Kopf's queue, task, wrappers and causes for each event were a quarter of the operator's time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final, Protocol

from finetune_operator.errors import KubeError
from finetune_operator.kinds import MANAGED_SELECTOR, Kind
from finetune_operator.model import Manifest

CHUNK: Final = 100
"""Objects of a list in memory at once."""
PAUSE: Final = 0.1
LONGEST_BACKOFF: Final = 13.0
"""Seconds between two attempts of a watch at an API server that is away."""
log = logging.getLogger(__name__)


class Source(Protocol):
    def listed(self, kind: Kind, namespace: str | None, *, labels: str, chunk: int) -> AsyncIterator[tuple[Sequence[Manifest], str]]: ...

    def changes(self, kind: Kind, namespace: str | None, *, labels: str, since: str) -> AsyncIterator[tuple[str, Manifest]]: ...


class Backoffs:
    """Without end, and each time from the first. A right that is missing is told by the re-list, which ends the process at once."""

    def __iter__(self) -> Iterator[float]:
        yield from (1, 1, 2, 3, 5, 8)
        while True:
            yield LONGEST_BACKOFF


async def follow(source: Source, kind: Kind, namespace: str | None, deliver: Callable[[Kind, str | None, Manifest], None]) -> None:
    """Deliver for ever: what a list shows, then each change. Where a watch ends it goes on from the last version that it told, and lists anew
    where that is too old. Deletions that are missed in between are found by the re-list.
    """
    version, backoffs = "", iter(Backoffs())
    while True:
        try:
            if not version:
                listed = ""
                async for page, listed_at in source.listed(kind, namespace, labels=MANAGED_SELECTOR, chunk=CHUNK):
                    listed = listed_at
                    for manifest in page:
                        deliver(kind, None, manifest)
                version = listed  # only now: a list that broke off shows nothing of what comes after it
            async for change, manifest in source.changes(kind, namespace, labels=MANAGED_SELECTOR, since=version):
                version, backoffs = manifest["metadata"]["resourceVersion"], iter(Backoffs())
                if change != "BOOKMARK":
                    deliver(kind, change, manifest)
            await asyncio.sleep(PAUSE)  # it has ended as agreed
        except KubeError as error:
            if error.code != 0:  # no broken connection: what it knows may be of no use any more (410)
                version = ""
            delay = next(backoffs)
            log.info("%s are watched again in %.0f s: %s", kind.plural, delay, error)
            await asyncio.sleep(delay)
