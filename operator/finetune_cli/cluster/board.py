"""Where `finetune watch` and `apply --wait` show jobs: a table with bars that is drawn again in place, or lines where nobody looks.

The drawing is pure: `frame` says what is on the screen. A lost connection is a line below the table; the table stays as it last was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from finetune_cli.cluster.story import at_work, headline
from finetune_cli.cluster.words import age, one_line
from finetune_client.objects import Job

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

LINE_SECONDS: Final = 10.0
"""How often a log hears of a job of which nothing but figures changed."""
RANK: Final = {"Failed": 4, "Succeeded": 5, "Suspended": 3, "": 2, "Pending": 2}
"""What is under way stands above what waits, and that above what has ended."""
STYLES: Final = {
    "Running": "cyan",
    "Preparing": "cyan",
    "Succeeded": "green",
    "Failed": "red",
    "Suspended": "yellow",
    "Suspending": "yellow",
}
NOTHING: Final = "No jobs yet."
Key = tuple[str, str]


class Board(Protocol):
    """What a command tells its news to."""

    def show(self, job: Job) -> None: ...

    def gone(self, job: Job) -> None:
        """It was deleted."""
        ...

    def complete(self) -> None:
        """All that was there when the command began has been shown."""
        ...

    def note(self, text: str) -> None:
        """Say what keeps the news from coming; nothing where they come again."""
        ...

    def tick(self) -> None:
        """Time has passed."""
        ...

    def close(self) -> None: ...


class Lines:
    """For logs and pipes: a line when a job does something else, and every ten seconds while only its figures change."""

    def __init__(self, stream: TextIO, now: Callable[[], datetime], *, namespaces: bool = False) -> None:
        self._stream = stream
        self._now = now
        self._namespaces = namespaces
        self._told: dict[Key, tuple[object, str, datetime]] = {}

    def show(self, job: Job) -> None:
        key, now = (job.namespace, job.name), self._now()
        does = (job.phase, at_work(job, ""), job.says)
        text = ", ".join(headline(job))
        before = self._told.get(key)
        if before is not None and before[0] == does and (before[1] == text or (now - before[2]).total_seconds() < LINE_SECONDS):
            return
        self._told[key] = (does, text, now)
        said = one_line(job.says)
        self._print(f"{self._name(job)}: {text}" + (f": {said}" if said and (before is None or before[0] != does) else ""))

    def gone(self, job: Job) -> None:
        self._told.pop((job.namespace, job.name), None)
        self._print(f"{self._name(job)}: deleted")

    def complete(self) -> None:
        if not self._told:
            self._print(NOTHING)

    def note(self, text: str) -> None:
        self._print(text or "the connection is back")

    def tick(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _name(self, job: Job) -> str:
        return f"{job.namespace}/{job.name}" if self._namespaces else job.name

    def _print(self, text: str) -> None:
        print(f"[{self._now().astimezone():%H:%M:%S}] {text}", file=self._stream, flush=True)


class Live:
    """For terminals. What it last showed stays on the screen."""

    def __init__(self, stream: TextIO, now: Callable[[], datetime], *, namespaces: bool = False) -> None:
        from rich.live import Live as RichLive

        from finetune_cli.console import Console

        self._now = now
        self._namespaces = namespaces
        self._jobs: dict[Key, Job] = {}
        self._note = ""
        self._begun = False
        self._console = Console(stream)
        self._live = RichLive(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def show(self, job: Job) -> None:
        self._jobs[job.namespace, job.name] = job

    def gone(self, job: Job) -> None:
        self._jobs.pop((job.namespace, job.name), None)

    def complete(self) -> None:
        self._begun = True

    def note(self, text: str) -> None:
        self._note = text

    def tick(self) -> None:
        if not self._begun and not self._jobs:
            return  # nobody knows yet that there is nothing
        if not self._live.is_started:
            self._live.start()
        self._live.update(self._drawn(), refresh=True)

    def close(self) -> None:
        if self._live.is_started:
            self._live.update(self._drawn(), refresh=True)
            self._live.stop()

    def _drawn(self) -> RenderableType:
        size = self._console.size
        return frame(
            self._jobs.values(), now=self._now(), width=size.width, height=size.height, note=self._note, namespaces=self._namespaces
        )


def frame(jobs: Iterable[Job], *, now: datetime, width: int, height: int, note: str = "", namespaces: bool = False) -> RenderableType:
    """What is on the screen: a line a job, what a single one or a troubled one says below it, and the note at the end."""
    from rich.console import Group
    from rich.text import Text

    ordered = sorted(jobs, key=lambda job: (RANK.get(job.phase, 1), job.namespace, job.name))
    room = max(1, height - 4)
    shown, rest = ordered[:room], ordered[room:]
    parts: list[RenderableType] = [_table(shown, now, width, namespaces)] if shown else [Text(NOTHING, style="dim")]
    if rest:
        parts.append(Text(f"… and {len(rest)} more", style="dim"))
    if len(shown) == 1:
        parts += _details(shown[0])
    if note:
        parts.append(Text(note, style="yellow"))
    return Group(*parts)


def _table(jobs: list[Job], now: datetime, width: int, namespaces: bool) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    heads = [head for head, least in (("STAGE", 64), ("LOSS", 72), ("ETA", 40), ("AGE", 80)) if width >= least]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", expand=True)
    table.add_column("NAME", no_wrap=True, overflow="ellipsis", ratio=3, min_width=8)
    table.add_column("PHASE", no_wrap=True, overflow="ellipsis", min_width=9)
    table.add_column("PROGRESS" if width >= 64 else "DONE", ratio=2 if width < 64 else 3, min_width=4, no_wrap=True)
    table.add_column("", justify="right", no_wrap=True, min_width=4)
    for head in heads:
        table.add_column(head, no_wrap=True, justify="right" if head in ("LOSS", "ETA", "AGE") else "left", overflow="ellipsis")
    for job in jobs:
        progress = job.raw_status.get("progress") or {}
        percent = 100 if job.succeeded else progress.get("percent")
        live = job.phase == "Running"
        cells = {
            "STAGE": at_work(job, ""),
            "LOSS": f"{progress['loss']:.4g}" if progress.get("loss") is not None else "",
            "ETA": one_line(str(progress.get("eta") or "")) if live else "",
            "AGE": age(job.created, now),
        }
        name = f"{job.namespace}/{job.name}" if namespaces else job.name
        phase = "Deleting" if job.deleting else job.phase or "–"
        bar: RenderableType = (
            ProgressBar(total=100, completed=percent, complete_style=STYLES.get(job.phase, "none"), finished_style="green")
            if percent is not None
            else Text("")
        )
        share = Text(f"{percent}%" if percent is not None else "")
        table.add_row(Text(name), Text(phase, style=STYLES.get(job.phase, "dim")), bar, share, *(Text(cells[head]) for head in heads))
    return table


def _details(job: Job) -> list[RenderableType]:
    """What one job says below its line."""
    from rich.padding import Padding
    from rich.text import Text

    lines = []
    rest = [part for part in headline(job)[1:] if not part.endswith(" %")]
    if rest:
        lines.append(Text(", ".join(rest), style="dim"))
    failure = job.raw_status.get("failure") or {}
    said = one_line(str(failure.get("message") or "")) or one_line(job.says)
    if said:
        lines.append(Text(said, style="red" if job.failed else "none"))
    if failure.get("hint"):
        lines.append(Text(f"→ {one_line(str(failure['hint']))}"))
    return [Padding(line, (0, 0, 0, 2)) for line in lines]


def board_for(stream: TextIO, now: Callable[[], datetime], *, namespaces: bool = False, lines: bool = False) -> Board:
    """A table where somebody looks; lines where a file or a pipe does, or a terminal that can't go back."""
    live = stream.isatty() and os.environ.get("TERM") != "dumb" and not lines
    return Live(stream, now, namespaces=namespaces) if live else Lines(stream, now, namespaces=namespaces)
