"""`finetune report`: the trainer writes the report from a run folder; this finds the folder, and opens the report."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from finetune_api.constants import ExitCode
from finetune_cli.errors import ClusterExit, CommandError
from finetune_cli.run_folder import RunFolder

REPORT = (sys.executable, "-m", "finetune_trainer.report")
_LOG_LINES = 5
_JOB_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"


def report(
    run: Path,
    *,
    open_it: bool = False,
    command: Sequence[str] | None = None,
    open_url: Callable[[str], bool] | None = None,
    stdout: TextIO = sys.stdout,
    stderr: TextIO = sys.stderr,
) -> int:
    """Write the report of a run anew and print its path. Where the trainer is not installed, the report that is there is shown."""
    folder = RunFolder(find(run))
    if command is not None or importlib.util.find_spec("torch") is not None:
        path = _write(folder, command or REPORT)
    elif folder.report.exists():
        path = folder.report
    else:
        raise CommandError(
            f"{folder.root} has no report yet, and the trainer, which writes it, is not installed here",
            hint="Install it with: pip install '.[cli,trainer]'",
            exit_code=ExitCode.INTERNAL,
        )
    print(path, file=stdout)
    if open_it and not (open_url or browser)(path.as_uri()):
        print("No browser could be started here: open the file above in one.", file=stderr)
    return ExitCode.SUCCESS


def is_here(run: str, *, on_cluster: bool) -> bool:
    """Whether a run on this machine is meant, and not a job on a cluster. on_cluster: an option was given that only the latter has."""
    if on_cluster:
        return False
    return re.fullmatch(_JOB_NAME, run) is None or any(folder.exists() for folder in (Path(run), Path("runs") / run))


@contextmanager
def there(run: str, *, on_cluster: bool) -> Iterator[Callable[[str], bool]]:
    """Ask a cluster, and say that there is no run here either, where nothing said that a cluster was meant. Gives what opens a report."""
    try:
        yield browser
    except CommandError as error:
        if on_cluster or error.exit_code not in (ClusterExit.UNREACHABLE, ClusterExit.NOT_FOUND, ClusterExit.NOT_INSTALLED):
            raise
        raise CommandError(
            f"there is no run folder {run}, and no job: {error.message}",
            hint=f"{_others()}. {error.hint}".strip(),
            exit_code=error.exit_code,
        ) from error


def find(run: Path) -> Path:
    """The run folder that is meant: the folder itself, or the name of one below runs/."""
    for folder in (run, Path("runs") / run):
        if (folder / "run.json").is_file():
            return folder.absolute()
    if run.is_file():
        raise CommandError(f"{run} is a file, not a run folder", hint="Name the run's folder, for instance runs/NAME.")
    if not run.exists():
        raise CommandError(f"there is no run folder {run}", hint=_others())
    raise CommandError(f"{run} is no run folder: it has no run.json", hint=_others())


def _others() -> str:
    found = sorted(str(path.parent) for path in Path("runs").glob("*/run.json"))
    return f"Runs here: {', '.join(found)}" if found else "Start a run with: finetune run job.yaml"


def _write(folder: RunFolder, command: Sequence[str]) -> Path:
    done = subprocess.run([*command, str(folder.root)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = "\n".join(done.stderr.strip().splitlines()[-_LOG_LINES:])
        raise CommandError(f"the report could not be written:\n{lines}", exit_code=done.returncode)
    said = done.stdout.strip().splitlines()
    path = Path(said[-1]) if said and Path(said[-1]).is_file() else folder.report
    return path.absolute()


def browser(url: str) -> bool:
    import webbrowser

    return webbrowser.open(url)
