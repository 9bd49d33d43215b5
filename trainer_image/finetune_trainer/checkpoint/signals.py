"""SIGTERM and Ctrl-C become a flag that is read at step ends.

A save inside an accumulation would not be exact, so a signal never acts by itself. The first one asks for a save; a second Ctrl-C
means "now": the process ends by the signal at once, and the next start goes on from the last commit, which is always whole. Further
SIGTERMs change nothing (a kubelet sends SIGKILL when it loses patience).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Whether the run was asked to stop, and by what."""

    def __init__(self) -> None:
        self.signal: str | None = None

    @property
    def requested(self) -> bool:
        return self.signal is not None

    def request(self, name: str) -> None:
        """Ask for a save and an end; the first reason stays."""
        self.signal = self.signal or name

    def __call__(self) -> bool:
        """The same as `requested`, for whoever takes a function."""
        return self.requested


def end_by(number: int) -> None:
    """End this process the way the signal would have."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextmanager
def stop_on_signals(end: Callable[[int], None] = end_by) -> Iterator[StopFlag]:
    """Answer SIGTERM and SIGINT by the flag that is yielded. Main thread only; the handlers before are put back at the end."""
    flag = StopFlag()

    def answer(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and flag.signal == "SIGINT":
            end(number)
        flag.request(signal.Signals(number).name)

    before = {number: signal.signal(number, answer) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
