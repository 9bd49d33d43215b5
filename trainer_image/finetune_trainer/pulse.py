"""The pulse of a process: when something in it last advanced.

A step, a row, a batch of an evaluation, a chunk that was saved, hashed or fetched: each stores the time, and that is all that a beat costs.
There is one pulse a process, as there is one log, so that code far from the loop (a download, a file layer) can beat without being handed
anything; only the watchdog reads it, from a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final


class Pulse:
    """`at`: when it last beat, by `clock` (seconds, monotonic)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.at = clock()

    def beat(self) -> None:
        """Something advanced."""
        self.at = self._clock()

    def age(self) -> float:
        """Seconds since then."""
        return self._clock() - self.at


PULSE: Final = Pulse()
beat: Final = PULSE.beat
