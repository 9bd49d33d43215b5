"""One trainer process, from start to end: its progress is read, signals are passed on once, and how it ended is told.

The process has a group of its own, so that a Ctrl-C in the terminal reaches it once, from here, and as SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from finetune_api.wire import ProgressReport

PROGRESS_FD = "FINETUNE_PROGRESS_FD"
_TICK_MILLISECONDS = 200
_LONGEST_LINE = 1024 * 1024
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Stops:
    """How often this command was told to stop, by Ctrl-C, SIGTERM or a closed terminal."""

    count: int = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stops]:
        """Count signals instead of dying of them. One that is ignored stays so: `nohup` asks for that."""
        heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._count) for number in heard}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


@dataclass(frozen=True)
class Ending:
    """How a process ended."""

    code: int
    """As a shell has it: 128 + the signal where it was killed."""
    asked: bool
    """Whether it had been told to stop."""

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that killed it."""
        return signal.Signals(self.code - 128) if self.code > 128 else None


def supervise(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    stops: Stops,
    on_report: Callable[[ProgressReport], None],
    on_stop: Callable[[int], None],
    on_tick: Callable[[], None],
) -> Ending:
    """Run the command to its end. The first stop becomes a SIGTERM, the second one kills the process and its children.

    `on_stop` is called with 1 and 2 when that is done; `on_tick` about five times a second.
    """
    reading, writing = os.pipe()
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env={**environment, PROGRESS_FD: str(writing)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
                process_group=0,
            )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    os.set_blocking(reading, False)
    lines = Lines()
    answered = 0
    try:
        while process.poll() is None:
            _wait_and_read(reading, lines, process, on_report)
            while answered < min(stops.count, 2):
                answered += 1
                _answer(process, answered)
                on_stop(answered)
            on_tick()
        _read(reading, lines, on_report)
    except BaseException:
        _answer(process, 2)
        process.wait()
        raise
    finally:
        os.close(reading)
    code = process.returncode
    return Ending(code=128 - code if code < 0 else code, asked=answered > 0)


def _answer(process: subprocess.Popen[bytes], times: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if times == 1:
            process.send_signal(signal.SIGTERM)
        else:
            os.killpg(process.pid, signal.SIGKILL)


def _wait_and_read(reading: int, lines: Lines, process: subprocess.Popen[bytes], on_report: Callable[[ProgressReport], None]) -> None:
    if lines.ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TICK_MILLISECONDS / 1000)
        return
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    if poll.poll(_TICK_MILLISECONDS):
        _read(reading, lines, on_report)


def _read(reading: int, lines: Lines, on_report: Callable[[ProgressReport], None]) -> None:
    while not lines.ended:
        try:
            data = os.read(reading, 65536)
        except BlockingIOError:
            return
        for report in lines.feed(data):
            on_report(report)


class Lines:
    """Bytes in, reports out. What is no report is dropped: progress is never worth a failed run."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""

    def feed(self, data: bytes) -> list[ProgressReport]:
        """Take the next bytes; none means that the writer closed its end."""
        self.ended = not data
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            self._rest = b""
        return [report for line in whole if (report := _report(line)) is not None]


def _report(line: bytes) -> ProgressReport | None:
    try:
        return ProgressReport.model_validate_json(line)
    except ValidationError:
        return None
