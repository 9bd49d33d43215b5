"""A queue of keys with the semantics of client-go's, which thousands of controllers rest on.

A key is worked on by one worker at a time; added again meanwhile it is dirty, and comes back once when that worker is done, however often
it was added. A failed key comes back after an exponential back-off of its own; any key may be added with a delay, of which the
earliest counts. Two lanes take turns, what happens to running jobs and what is new: a flood of one makes the other wait twice as long at
most. A job that has just started brings more news than one that waits for its start, so that neither may simply go first.

All but `get` is synchronous and takes the time from the clock that was given, so that tests need no sleep.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Lane(IntEnum):
    """Of two that a key was added to, the lower counts."""

    RUNNING = 0
    NEW = 1


@dataclass(frozen=True)
class Backoff:
    """first · 2ⁿ seconds before retry n+1, `most` at most."""

    first: float = 0.1
    most: float = 60.0

    def delay(self, failures: int) -> float:
        return float(min(self.first * 2 ** min(failures, 32), self.most))


class WorkQueue(Generic[K]):
    def __init__(self, *, clock: Callable[[], float], backoff: Backoff | None = None) -> None:
        """clock: seconds, monotonic."""
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._lanes: tuple[OrderedDict[K, float], ...] = (OrderedDict(), OrderedDict())  # key → since when it waits
        self._working: dict[K, float] = {}  # key → seconds that it waited
        self._dirty: dict[K, tuple[Lane, float]] = {}  # added while it was worked on: since when
        self._failures: dict[K, int] = {}
        self._due: dict[K, float] = {}
        self._timers: list[tuple[float, int, K]] = []  # heap; the number keeps keys from being compared
        self._added = 0
        self._turn = Lane.RUNNING
        self._closed = False
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """How many keys wait to be worked on now, delayed ones apart."""
        return sum(len(lane) for lane in self._lanes)

    def add(self, key: K, lane: Lane = Lane.NEW) -> None:
        """Have the key worked on; nothing where it waits already, except that it moves from what is new to what runs."""
        if self._closed:
            return
        if key in self._working:
            before, since = self._dirty.get(key, (lane, self._clock()))
            self._dirty[key] = min(lane, before), since
            return
        self._add(key, lane, self._clock())

    def _add(self, key: K, lane: Lane, since: float) -> None:
        since = next((held.pop(key) for held in self._lanes[lane + 1 :] if key in held), since)
        if not any(key in held for held in self._lanes):
            self._lanes[lane][key] = since
            self._changed.set()

    def add_after(self, key: K, delay: float) -> None:
        """Add the key in so many seconds, or when it is due already, whichever is earlier."""
        due = self._clock() + max(delay, 0.0)
        if self._closed or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._added += 1
        heapq.heappush(self._timers, (due, self._added, key))
        self._changed.set()

    def retry(self, key: K) -> float:
        """Add the key after its own back-off, which doubles each time until `forget`. Returns the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = self._backoff.delay(failures)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key succeeded: its next failure starts with the shortest back-off."""
        self._failures.pop(key, None)

    def pop(self) -> K | None:
        """The next key, which is being worked on until `done`; None where none waits."""
        self._release_due()
        waiting = [lane for lane in Lane if self._lanes[lane]]
        if not waiting:
            return None
        lane = self._turn if self._turn in waiting else waiting[0]
        self._turn = Lane.NEW if lane is Lane.RUNNING else Lane.RUNNING
        key, since = self._lanes[lane].popitem(last=False)
        self._working[key] = self._clock() - since
        return key

    def done(self, key: K) -> None:
        """The worker has finished with the key: it comes back now where it got dirty."""
        self._working.pop(key, None)
        dirty = self._dirty.pop(key, None)
        if dirty is not None and not self._closed:
            self._add(key, *dirty)

    def close(self) -> None:
        """Hand out nothing more: every `get` ends with None."""
        self._closed = True
        self._changed.set()

    async def get(self) -> K | None:
        """Wait for a key, None once the queue is closed."""
        while not self._closed:
            key = self.pop()
            if key is not None:
                return key
            self._changed.clear()
            wait = self._timers[0][0] - self._clock() if self._timers else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return None

    def oldest(self) -> float:
        """Seconds that the key which waits longest has waited, 0 where none waits."""
        since = [next(iter(lane.values())) for lane in self._lanes if lane]
        return self._clock() - min(since) if since else 0.0

    def waited(self, key: K) -> float:
        """Seconds that a key which is being worked on had waited."""
        return self._working[key]

    def delayed(self) -> int:
        """How many keys wait for their time."""
        return len(self._due)

    def _release_due(self) -> None:
        now = self._clock()
        while self._timers and self._timers[0][0] <= now:
            due, _, key = heapq.heappop(self._timers)
            if self._due.get(key) == due:  # else an earlier one took its place
                del self._due[key]
                self.add(key, Lane.RUNNING)
