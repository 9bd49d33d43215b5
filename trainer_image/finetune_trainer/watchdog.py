"""Sees that a run no longer advances, says so, and in the end ends it: a hang would hold its GPU for ever, and a fresh process goes on from
the newest checkpoint.

`looked` and `verdict` decide, and are pure; the thread looks, tells and ends. Silence is counted in the looks that were made: while the
process is frozen (docker pause, a suspended machine) or gets no CPU at all, the watchdog makes none either, and nothing counts.

A main thread that is stuck in native code is no obstacle as long as that code has let go of the interpreter's lock, as reads, writes, the
network and torch do. Code that holds it (a page of mapped rows that a file server never sends) lets no Python thread run at all;
faulthandler's own thread, which needs no lock, then dumps the stacks a minute later and ends the process with exit code 1, which is retried
too. Its clock is the machine's: a process that was frozen for that long may meet it when it is thawed.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import PurePath
from types import FrameType
from typing import Final, Protocol

from finetune_api.wire import Activity
from finetune_trainer.pulse import PULSE, Pulse

LOOK_SECONDS: Final = 5.0
SAY_SECONDS: Final = 60.0
"""Between two reports of the same silence: an operator that was restarted hears of it again."""
FACTOR: Final = 4.0
"""A silence is judged by the longest of the last ones: so often as long as that is allowed."""
REMEMBERED: Final = 32
PATIENT: Final = frozenset({Activity.LOAD, Activity.HAND_OVER, Activity.PUBLISH})
"""What loads, folds or writes whole models in calls that can't say how far they are: they are given twice as long."""
BACKSTOP_SECONDS: Final = 60.0
INNERMOST: Final = 5
"""Frames of the main thread that the message names."""
SAVER: Final = "checkpoint"
"""How the thread's name begins that writes checkpoints."""
_STANDARD_ERROR: Final = 2


@dataclass(frozen=True)
class Watch:
    """What is remembered from look to look."""

    beat: float
    """When the pulse last beat, as far as was seen."""
    at: float
    """When this look was made."""
    quiet: float = 0.0
    """Seconds of looking on since that beat."""
    silences: tuple[float, ...] = ()
    """The last silences that ended, in seconds."""


class Verdict(Enum):
    WELL = auto()
    SILENT = auto()
    """Half of the time is over."""
    HANGS = auto()


def looked(before: Watch, *, at: float, beat: float, every: float) -> Watch:
    """What is remembered after a look at `at` that saw the newest `beat`. every: seconds between two looks. Pure."""
    passed = min(at - before.at, 2 * every)
    if beat == before.beat:
        return replace(before, at=at, quiet=before.quiet + passed)
    ended = before.quiet + max(0.0, passed - (at - beat))
    return Watch(beat=beat, at=at, quiet=min(passed, at - beat), silences=(*before.silences, ended)[-REMEMBERED:])


def limit(watch: Watch, *, floor: float, activity: Activity) -> float:
    """Seconds of silence after which a run hangs: the floor (twice that for what can't say how far it is), or four times the longest of the
    last silences where that is more: whoever needs half an hour for a micro-batch may need it again. Pure."""
    patience = 2 * floor if activity in PATIENT else floor
    return max(patience, FACTOR * max(watch.silences, default=0.0))


def verdict(watch: Watch, *, floor: float, activity: Activity) -> Verdict:
    """What a silence means. Pure."""
    most = limit(watch, floor=floor, activity=activity)
    if watch.quiet >= most:
        return Verdict.HANGS
    return Verdict.SILENT if watch.quiet >= most / 2 else Verdict.WELL


@dataclass(frozen=True)
class Hang:
    """A process that no longer advances: for how long, and where each thread stands."""

    seconds: float
    where: str
    """The innermost frames of the main thread, and of the one that saves, in one line."""
    stacks: str
    """Every thread's, innermost frame first."""


class Say(Protocol):
    def __call__(self, seconds: float | None, limit: float) -> bool:
        """Tell, or begin to. False: not now, ask again."""
        ...


class Watchdog:
    def __init__(
        self,
        floor: float,
        *,
        activity: Callable[[], Activity],
        say: Say,
        end: Callable[[Hang], None],
        pulse: Pulse = PULSE,
        clock: Callable[[], float] = time.monotonic,
        every: float = LOOK_SECONDS,
        backstop: float = BACKSTOP_SECONDS,
    ) -> None:
        """floor: seconds without a beat after which a run hangs, at least. activity: what it is doing. say: is told for how many seconds
        nothing has advanced, again each minute, and of how many that are too many; None once it goes on; it must not wait. end: ends the process. every:
        seconds between two looks. backstop: seconds after the limit at which faulthandler ends what lets no Python thread run."""
        self._floor = floor
        self._activity = activity
        self._say = say
        self._end = end
        self._pulse = pulse
        self._clock = clock
        self.every = every
        self._backstop = backstop
        self._watch = Watch(beat=pulse.at, at=clock())
        self._said: float | None = None

    def look(self) -> None:
        """Look once, and do what follows."""
        self._watch = watch = looked(self._watch, at=self._clock(), beat=self._pulse.at, every=self.every)
        activity = self._activity()
        most = limit(watch, floor=self._floor, activity=activity)
        match verdict(watch, floor=self._floor, activity=activity):
            case Verdict.HANGS:
                self._end(Hang(watch.quiet, where(), stacks()))
            case Verdict.SILENT:
                if (self._said is None or watch.quiet - self._said >= SAY_SECONDS) and self._say(watch.quiet, most):
                    self._said = watch.quiet
            case Verdict.WELL:
                if self._said is not None and self._say(None, most):
                    self._said = None

    def arm(self) -> None:
        """Set faulthandler's own clock, for code that lets no Python thread run."""
        most = limit(self._watch, floor=self._floor, activity=self._activity())
        faulthandler.dump_traceback_later(most - min(most, self._watch.quiet) + self._backstop, file=_STANDARD_ERROR, exit=True)


@contextmanager
def watched(watchdog: Watchdog) -> Iterator[None]:
    """Let a thread look while the block runs."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(watchdog.every):
            watchdog.look()
            watchdog.arm()

    thread = threading.Thread(target=run, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()


def beside(tell: Callable[[float | None, float], None]) -> Say:
    """Tell in a thread of its own, one thing after the other: the log may lie on what hangs, and the watchdog must not wait for it."""
    thread: threading.Thread | None = None

    def say(seconds: float | None, limit: float) -> bool:
        nonlocal thread
        if thread is not None and thread.is_alive():
            return False
        thread = threading.Thread(target=tell, args=(seconds, limit), name="telling", daemon=True)
        thread.start()
        return True

    return say


def stacks() -> str:
    """Where each thread stands, innermost frame first, the main thread last: the end of a log is what a status shows."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    told = []
    for number, frame in sorted(sys._current_frames().items(), key=lambda item: item[0] == main):
        # Their source lines are not read: the disk may be what hangs.
        found = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
        told.append(
            "\n".join([f"thread {names.get(number, number)}:", *(f"  {each.filename}:{each.lineno} in {each.name}" for each in found)])
        )
    return "\n".join(told)


def where() -> str:
    """The innermost frames of the main thread, and of a thread that saves, for which it may wait: `open_append (files.py:71) ← append
    (journal.py:40) ← …`."""
    frames, main = sys._current_frames(), threading.main_thread()
    told = [f"the main thread stands in {_innermost(frames.get(main.ident or 0))}"]
    told += [
        f"thread {thread.name} in {_innermost(frames.get(thread.ident or 0))}"
        for thread in threading.enumerate()
        if thread.name.startswith(SAVER)
    ]
    return ", ".join(told)


def _innermost(frame: FrameType | None) -> str:
    found = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False, limit=INNERMOST) if frame is not None else []
    return " ← ".join(f"{each.name} ({PurePath(each.filename).name}:{each.lineno})" for each in found) or "nothing: it has ended"
