"""`finetune run --lr-range`: a learning-rate range test of one stage, in a folder of its own inside the run folder. Nothing is trained for good."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.wire import SegmentKind
from finetune_cli.console import Console
from finetune_cli.errors import CommandError
from finetune_cli.outcome import Outcome
from finetune_cli.request import RunRequest, refuse_missing
from finetune_cli.run import TRAINER, Part, again, load_one, planned_for, refuse_without_trainer, work
from finetune_cli.run_folder import RunFolder
from finetune_cli.summary import print_failed, print_stopped
from finetune_cli.supervisor import Stops
from finetune_cli.terminal import shown
from finetune_cli.view import view_for

FOLDER: Final = "lr-range"
COMMAND: Final = "lr-range"
DOCUMENT: Final = "lr-range.json"
PICTURE: Final = "lr-range.svg"


@dataclass(frozen=True)
class Range:
    """What is tested: the options of the command."""

    stage: str | None = None
    low: float | None = None
    high: float | None = None
    steps: int | None = None

    def options(self) -> list[str]:
        """As the user writes them."""
        given = {"--lr-stage": self.stage, "--lr-from": self.low, "--lr-to": self.high, "--lr-steps": self.steps}
        return ["--lr-range", *_words(given)]

    def arguments(self, run: Path) -> list[str]:
        """For the trainer. run: the job's own run folder, where a later stage finds what it starts from."""
        given = {"--stage": self.stage, "--low": self.low, "--high": self.high, "--steps": self.steps}
        return [*_words(given), "--run", str(run)]


def run_range(
    request: RunRequest,
    asked: Range,
    *,
    stdin: BinaryIO = sys.stdin.buffer,
    stdout: TextIO = sys.stdout,
    stderr: TextIO = sys.stderr,
    trainer_command: Sequence[str] | None = None,
) -> int:
    """Test, show what came of it, and return the exit code."""
    job = load_one(request.manifest, stdin=stdin, stderr=stderr)
    refuse_missing(job.spec, request)
    _refuse_unknown(asked, job)
    refuse_without_trainer(trainer_command)
    run = Path(planned_for(request, job).segments[0].run_folder)
    folder = RunFolder(run / FOLDER)
    planned = planned_for(request, job, folder=folder)
    folder.refuse_if_busy()
    view = view_for([stage.name for stage in job.spec.stages], stderr, quiet=request.quiet)
    folder.begin_anew()  # a test is never gone on with, and another manifest may be tested next
    folder.create()
    for name in (DOCUMENT, PICTURE):
        (folder.root / name).unlink(missing_ok=True)
    once_more = again(request, asked.options())
    answers = (f"stopping: the test keeps nothing; start it again with `{once_more}` (Ctrl-C again ends it at once)", "killed")
    with Stops().listening() as stops:
        try:
            tested = next(config for config in planned.segments[1:] if _stage(asked, job) in config.segment.stages)
            parts = [Part(planned.segments[0], SegmentKind.PREPARE), Part(tested, COMMAND, asked.arguments(run))]
            outcome = work(parts, folder, stops, view, trainer_command or TRAINER, answers)
        finally:
            view.close()
    _show(outcome, folder, once_more, request.output, stdout=stdout, stderr=stderr)
    return outcome.exit_code


def words(test: dict[str, Any]) -> list[str]:
    """What the test came to, in sentences."""
    rates = test["rates"]
    if not rates:
        return ["The loss was no number after the first update: begin lower (--lr-from)."]
    ends = f"from {rates[0]:.2g} to {rates[-1]:.2g}"
    lost = f" At {test['diverged']:.2g} it diverged." if test["diverged"] is not None else ""
    if test["steepest"] is None:
        return [
            f"Stage {test['stage']}, rates {ends}: the loss did not fall.{lost} Try other rates (--lr-from, --lr-to), or more steps (--lr-steps)."
        ]
    return [
        f"Stage {test['stage']}, rates {ends}: the loss falls fastest at {test['steepest']:.2g}, and a tenth of the rate with the least loss is "
        f"{test['safe']:.2g}.{lost}",
        f"Suggested: learningRate between {min(test['steepest'], test['safe']):.1e} and {max(test['steepest'], test['safe']):.1e}. "
        f"The manifest has {test['declared']:.2g}.",
    ]


def _show(outcome: Outcome, folder: RunFolder, once_more: str, output: str, *, stdout: TextIO, stderr: TextIO) -> None:
    result, err = outcome.result, Console(stderr)
    if result is None or result.outcome == "Stopped":
        print_stopped(err, result, once_more, then="Start it again with")
    elif result.outcome == "Failed":
        print_failed(err, outcome, result)
    else:
        test = json.loads((folder.root / DOCUMENT).read_bytes())
        picture = folder.root / PICTURE
        if output == "json":
            print(json.dumps({**test, "picture": str(picture)}, indent=2), file=stdout)
            return
        for sentence in words(test):
            print(sentence, file=stdout)
        print(f"  picture: {shown(picture)}", file=stdout)


def _words(given: Mapping[str, object]) -> list[str]:
    """Options and their values, of those that were given."""
    return [word for name, value in given.items() if value is not None for word in (name, str(value))]


def _stage(asked: Range, job: FineTuneJob) -> str:
    return asked.stage or job.spec.stages[0].name


def _refuse_unknown(asked: Range, job: FineTuneJob) -> None:
    names = [stage.name for stage in job.spec.stages]
    if asked.stage is not None and asked.stage not in names:
        raise CommandError(f"--lr-stage {asked.stage}: the job has no such stage, but {', '.join(names)}", hint="Name one of them.")
    if asked.low is not None and asked.high is not None and asked.low >= asked.high:
        raise CommandError(
            f"--lr-from {asked.low:g} is not below --lr-to {asked.high:g}", hint="Rates rise: give a lower and a higher one."
        )
