"""Where progress is shown: a live bar on a terminal, a line every few seconds in a log, or nowhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

from finetune_api.wire import ProgressReport
from finetune_cli.progress import Track, duration

if TYPE_CHECKING:
    from rich.console import RenderableType

LINE_SECONDS = 5.0
SILENCE_SECONDS = 30.0


class View(Protocol):
    """What `run` tells its progress to."""

    def report(self, report: ProgressReport) -> None: ...

    def note(self, text: str) -> None:
        """Show a sentence that stays."""
        ...

    def tick(self) -> None:
        """Time has passed."""
        ...

    def close(self) -> None: ...


class Silent:
    """`--quiet`: nothing but the result."""

    def report(self, report: ProgressReport) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def tick(self) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """For logs and pipes: a line when something begins, a message comes, or a few seconds have passed."""

    def __init__(self, stages: list[str], stream: TextIO, clock: Callable[[], float] = time.monotonic, *, arms: Sequence[str] = ()) -> None:
        self._track = Track(stages, arms)
        self._stream = stream
        self._clock = clock
        self._start = clock()
        self._last = self._start

    def report(self, report: ProgressReport) -> None:
        began = self._track.update(report)
        if report.message:
            self.note(report.message)
        if began or self._clock() - self._last >= LINE_SECONDS:
            self._state()

    def note(self, text: str) -> None:
        self._print(text)

    def tick(self) -> None:
        """A sign of life while no report comes: loading a large model takes minutes."""
        if self._clock() - self._last >= SILENCE_SECONDS:
            self._state()

    def close(self) -> None:
        pass

    def _state(self) -> None:
        self._last = self._clock()
        parts = [f"{self._track.percent:3.0f} %", self._track.headline(), *self._track.details(), self._track.left()]
        self._print("  ".join(part for part in parts if part))

    def _print(self, text: str) -> None:
        print(f"[{duration(self._clock() - self._start)}] {text}", file=self._stream, flush=True)


class Bar:
    """For terminals: two lines that are drawn again in place, and messages above them."""

    def __init__(self, stages: list[str], stream: TextIO, clock: Callable[[], float] = time.monotonic, *, arms: Sequence[str] = ()) -> None:
        from rich.live import Live

        from finetune_cli.console import Console

        self._track = Track(stages, arms)
        self._clock = clock
        self._start = clock()
        self._console = Console(stream)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def report(self, report: ProgressReport) -> None:
        self._track.update(report)
        if report.message:
            self.note(report.message)

    def note(self, text: str) -> None:
        self._console.print(f"{duration(self._clock() - self._start)} {text}")

    def tick(self) -> None:
        if not self._live.is_started:
            self._live.start()
        self._live.update(self._drawn(), refresh=True)

    def close(self) -> None:
        self._live.stop()

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        track = self._track
        top = Table.grid(padding=(0, 1), expand=True)
        top.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
        top.add_column(ratio=2)
        top.add_column(justify="right", no_wrap=True)
        top.add_row(Text(track.headline(), style="bold"), ProgressBar(total=100, completed=track.percent), Text(f"{track.percent:.0f} %"))
        elapsed = f"{duration(self._clock() - self._start)} so far"
        below = Text("  ".join(part for part in [*track.details(), elapsed, track.left()] if part), style="dim", no_wrap=True)
        below.overflow = "ellipsis"
        return Group(top, below)


class Unheard:
    """Passes on to a view until it can't be written to: a closed terminal, a reader that went away. That must not end a run."""

    def __init__(self, view: View) -> None:
        self._view = view

    def report(self, report: ProgressReport) -> None:
        self._try(lambda: self._view.report(report))

    def note(self, text: str) -> None:
        self._try(lambda: self._view.note(text))

    def tick(self) -> None:
        self._try(self._view.tick)

    def close(self) -> None:
        self._try(self._view.close)

    def _try(self, show: Callable[[], None]) -> None:
        try:
            show()
        except OSError:
            self._view = Silent()


def view_for(stages: list[str], stream: TextIO, *, quiet: bool, arms: Sequence[str] = ()) -> View:
    """A bar where somebody looks, lines where a file or a pipe does."""
    if quiet:
        return Silent()
    return Unheard(Bar(stages, stream, arms=arms) if stream.isatty() else Lines(stages, stream, arms=arms))
