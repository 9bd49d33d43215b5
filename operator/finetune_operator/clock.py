"""What time it is: the API server's, since every age that is decided on counts from a time that the control plane wrote.

With a clock of its own that is an hour ahead, the operator would give up a node that is silent for a second; an hour behind, it would say
nothing of a pod that waits. So each answer's `Date` tells how far this machine is off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

log = logging.getLogger(__name__)
TOLERATED: Final = timedelta(seconds=5)
"""Less than this is no skew: `Date` has whole seconds, and an answer takes its time."""
SLOW: Final = 2.0
"""Seconds after which an answer no longer tells what time it was."""


class Clock:
    def __init__(self, *, wall: Callable[[], datetime]) -> None:
        """wall: this machine's time, with its zone."""
        self._wall = wall
        self._off = timedelta()
        self._warned = False

    def now(self) -> datetime:
        """Return the API server's time."""
        return self._wall() + self._off

    def hear(self, date: str | None, seconds: float) -> None:
        """Take in the `Date` of an answer that took so long. What can't be read says nothing."""
        try:
            said = parsedate_to_datetime(date) if date is not None and seconds <= SLOW else None
        except ValueError:
            return
        if said is None or said.tzinfo is None:
            return
        off = said + timedelta(seconds=0.5 + seconds / 2) - self._wall()
        off = off if abs(off) >= TOLERATED else timedelta()
        if off and not self._warned:  # once: several API servers may disagree, too
            self._warned = True
            log.warning("this machine's clock is %.0f s ahead of the API server's, which counts", -off.total_seconds())
        self._off = off
