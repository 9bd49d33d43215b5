"""`finetune report`, `get-model`, and the logs of pods that are gone: what a job left on its volume comes here through a reading pod."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from finetune_api.constants import ExitCode
from finetune_api.reading import NAMES, What, artifacts_of
from finetune_cli.cluster.session import Target, converse
from finetune_cli.cluster.words import one_line, safe_line, seconds_of
from finetune_cli.errors import CommandError
from finetune_cli.progress import size
from finetune_cli.terminal import shown

if TYPE_CHECKING:
    from finetune_client import AsyncClient, Fetched, Transfer


@dataclass(frozen=True)
class Options:
    force: bool = False
    timeout: str = "5m"
    quiet: bool = False


def report(
    target: Target,
    name: str,
    folder: Path | None,
    options: Options,
    *,
    open_it: Callable[[str], bool] | None = None,
    stdout: TextIO = sys.stdout,
    stderr: TextIO = sys.stderr,
) -> int:
    """Bring the report and the model card, and print their paths. open_it: opens the report. Raises CommandError."""
    fetched = _fetch(target, name, What.REPORT, folder or Path(f"{name}-report"), options, stderr)
    for path in fetched.files:
        print(shown(path.absolute()), file=stdout)
    page = next((path for path in fetched.files if path.name == NAMES["report"]), None)
    if open_it is not None and page is not None and not open_it(page.absolute().as_uri()):
        print("No browser could be started here: open the file above in one.", file=stderr)
    return ExitCode.SUCCESS


def get_model(
    target: Target, name: str, folder: Path, kind: str, options: Options, *, stdout: TextIO = sys.stdout, stderr: TextIO = sys.stderr
) -> int:
    """Bring the adapter, or the merged model, and print the folder and its hash. Raises CommandError."""
    fetched = _fetch(target, name, What(kind), folder, options, stderr)
    published = next(artifact for artifact in artifacts_of(fetched.job.raw_status) if artifact.kind == kind)
    count = len(fetched.files)
    files = f"{count} {'file' if count == 1 else 'files'}, {size(fetched.bytes)}"
    print(f"{shown(folder.absolute())}: {kind} of {name}, {files}, sha256 {published.sha256} as published", file=stdout)
    return ExitCode.SUCCESS


async def print_logs(client: AsyncClient, name: str, *, every: bool, tail: int | None, stdout: TextIO, stderr: TextIO) -> None:
    """Print the logs in the run folder of a job that has ended: the newest trainer's, or all, oldest first."""
    print(f"No pod of {name} is left: its logs are read from the run folder.", file=stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="finetune-logs-") as temporary:
        with _screen(stderr, quiet=False) as seen:
            fetched = await client.fetch(name, What.LOGS, Path(temporary) / "logs", seen=seen)
        for path in reversed(fetched.files if every else fetched.files[:1]):
            print(f"==> {path.name}, from the run folder <==", file=stderr, flush=True)
            for line in last_lines(path.read_text(encoding="utf-8", errors="replace"), tail):
                print(safe_line(line), file=stdout)


def last_lines(text: str, tail: int | None) -> list[str]:
    """The lines of a log, or the last of them."""
    lines = text.removesuffix("\n").split("\n") if text else []
    return lines if tail is None else lines[max(0, len(lines) - tail) :]


def _fetch(target: Target, name: str, what: What, folder: Path, options: Options, stderr: TextIO) -> Fetched:
    seconds = seconds_of(options.timeout)
    if seconds is None:
        raise CommandError(f"--timeout {options.timeout}: this is no duration", hint="Write 90s, 10m, 1h30m or 2d.", exit_code=2)
    with _screen(stderr, quiet=options.quiet) as seen:

        async def work(client: AsyncClient) -> Fetched:
            return await client.fetch(name, what, folder, force=options.force, timeout=seconds, seen=seen)

        return converse(target, work)


@contextmanager
def _screen(stream: TextIO, *, quiet: bool) -> Iterator[Callable[[Transfer], None]]:
    """Where the transfer is shown: a bar on a terminal, else a line when it waits for something else."""
    if quiet:
        yield lambda transfer: None
    elif stream.isatty():
        with _bar(stream) as seen:
            yield seen
    else:
        yield Lines(stream).show


class Lines:
    """A line whenever something else is waited for, or more has arrived."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said = ""

    def show(self, transfer: Transfer) -> None:
        text = one_line(transfer.waits_for)
        if transfer.done:
            of = f" of {size(transfer.total)}" if transfer.total is not None else ""
            text = f"{size(transfer.done)}{of}: {text}"
        if text != self._said:
            print(text, file=self._stream, flush=True)
        self._said = text


@contextmanager
def _bar(stream: TextIO) -> Iterator[Callable[[Transfer], None]]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
    from rich.table import Column

    from finetune_cli.console import Console

    words = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    amount: Any = DownloadColumn(binary_units=True)
    with Progress(BarColumn(bar_width=24), amount, words, console=Console(stream), expand=True, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda transfer: bar.update(task, completed=transfer.done, total=transfer.total, description=one_line(transfer.waits_for))
