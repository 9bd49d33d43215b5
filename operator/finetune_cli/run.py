"""`finetune run`: the plan on this machine, one trainer process a segment, and what came of it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from finetune_api.arms import arms
from finetune_api.constants import ExitCode
from finetune_api.plan import Plan, Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.wire import Activity, ProgressReport, SegmentKind, TrainerConfig
from finetune_cli.errors import CommandError
from finetune_cli.manifests import STDIN, check
from finetune_cli.outcome import Outcome, interpret
from finetune_cli.request import RunRequest, refuse_missing, unused
from finetune_cli.run_folder import RunFolder, finished
from finetune_cli.supervisor import Ending, Stops, supervise
from finetune_cli.terminal import paint_for, shown
from finetune_cli.validate import render
from finetune_cli.view import View, view_for

TRAINER = (sys.executable, "-m", "finetune_trainer")


@dataclass(frozen=True)
class Part:
    """What one trainer process does."""

    config: TrainerConfig
    kind: str
    more: Sequence[str] = ()
    """Words of its command behind the config."""


def run(
    request: RunRequest,
    *,
    stdin: BinaryIO = sys.stdin.buffer,
    stdout: TextIO = sys.stdout,
    stderr: TextIO = sys.stderr,
    trainer_command: Sequence[str] | None = None,
) -> int:
    """Run or go on with a job, show its progress on `stderr` and its result on `stdout`, and return the exit code."""
    from finetune_cli import summary

    started = time.monotonic()
    job = load_one(request.manifest, stdin=stdin, stderr=stderr)
    refuse_missing(job.spec, request)
    planned = planned_for(request, job)
    folder = RunFolder(Path(planned.segments[0].run_folder))
    folder.refuse_if_taken(planned.segments[0])
    before = folder.read_result()
    if before is not None and finished(before, job):
        outcome = Outcome(result=before, exit_code=ExitCode.SUCCESS, already=True)
    else:
        refuse_without_trainer(trainer_command)
        view = view_for([stage.name for stage in job.spec.stages], stderr, quiet=request.quiet, arms=[arm.words for arm in arms(job.spec)])
        if folder.identity().get("configHash") not in (None, planned.segments[0].config_hash):
            folder.begin_anew()
            view.note("the run folder held an earlier manifest of this job, which had failed before it saved anything: it begins anew")
        folder.create()
        for sentence in unused(job.spec):
            view.note(sentence)
        with Stops().listening() as stops:
            try:
                answers = (
                    f"stopping: the trainer saves first; go on later with `{again(request)}` (Ctrl-C again ends it at once)",
                    "killed; the last checkpoint is what is left",
                )
                parts = [Part(config, config.segment.kind) for config in planned.segments]
                outcome = work(parts, folder, stops, view, trainer_command or TRAINER, answers)
            finally:
                view.close()
    with contextlib.suppress(OSError):  # nobody reads any more; the exit code still tells
        summary.show(
            outcome,
            job,
            folder,
            again=again(request),
            output=request.output,
            seconds=time.monotonic() - started,
            stdout=stdout,
            stderr=stderr,
        )
    return outcome.exit_code


def planned_for(request: RunRequest, job: FineTuneJob, *, folder: RunFolder | None = None) -> Plan:
    """The plan of a job on this machine. folder: where it runs, instead of the run folder that was asked for."""
    folder = folder or RunFolder((request.run_folder or Path("runs") / job.metadata.name).expanduser().absolute())
    return plan(job, runtime=_runtime(request, folder))


def load_one(manifest: str, *, stdin: BinaryIO, stderr: TextIO) -> FineTuneJob:
    """Return the one valid job of a manifest; its problems and warnings go to `stderr`."""
    checked = check(manifest, stdin)
    paint = paint_for(stderr)
    for finding in checked.findings:
        print(render(finding, paint), file=stderr)
    if checked.errors:
        raise CommandError(f"{manifest} is not valid: nothing was started" if manifest != STDIN else "the manifest is not valid")
    if len(checked.jobs) != 1:
        names = ", ".join(job.metadata.name for job in checked.jobs)
        raise CommandError(
            f"{manifest} holds {f'{len(checked.jobs)} jobs ({names})' if names else 'no job'}; this command takes one",
            hint="Put each job into a file of its own.",
        )
    return checked.jobs[0]


def environment(threads: int) -> dict[str, str]:
    """What a trainer process finds: the caller's environment, with the thread count of the plan."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "true")}


def work(parts: Iterable[Part], folder: RunFolder, stops: Stops, view: View, command: Sequence[str], answers: tuple[str, str]) -> Outcome:
    """Run one process after the other; the first that does not succeed is the outcome. answers: what is shown on the first and the second stop."""
    outcome = Outcome(result=None, exit_code=ExitCode.SUCCESS)
    for part in parts:
        if stops.count:
            return Outcome(result=None, exit_code=ExitCode.STOPPED)
        path = folder.write_config(part.config)
        log = folder.next_log(part.kind)
        before = folder.stamp()
        ending = _supervised([*command, part.kind, "--config", str(path), *part.more], part.config, log, stops, view, answers)
        result = folder.read_result() if folder.stamp() != before else None
        outcome = interpret(ending, result, log)
        if outcome.exit_code != ExitCode.SUCCESS:
            break
    return outcome


def _supervised(command: Sequence[str], config: TrainerConfig, log: Path, stops: Stops, view: View, answers: tuple[str, str]) -> Ending:
    """Run one trainer process; what it reports is shown."""
    # What it does before it can say so itself: importing torch takes seconds.
    view.report(ProgressReport(activity=Activity.PREPARE if config.segment.kind is SegmentKind.PREPARE else Activity.LOAD))

    return supervise(
        command,
        environment=environment(config.threads),
        log=log,
        stops=stops,
        on_report=view.report,
        on_stop=lambda times: view.note(answers[times - 1]),
        on_tick=view.tick,
    )


def _runtime(request: RunRequest, folder: RunFolder) -> Runtime:
    manifest_folder = Path.cwd() if request.manifest == STDIN else Path(request.manifest).absolute().parent
    recorded = folder.identity().get("threads")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Runtime(
        run_folder=str(folder.root),
        base_folder=str(manifest_folder),
        mounts={name: str(path) for name, path in request.mounts.items()},
        secret_files={name: str(path) for name, path in request.secrets.items()},
        threads=request.threads or (recorded if isinstance(recorded, int) and recorded > 0 else usable),
    )


def again(request: RunRequest, more: Sequence[str] = ()) -> str:
    """The command that goes on with this run, or does again what `more` asks for."""
    import shlex

    words = ["finetune", "run", request.manifest]
    words += ["--run-folder", shown(request.run_folder)] if request.run_folder else []
    for name, path in request.mounts.items():
        words += ["--mount", f"{name}={shown(path)}"]
    for name, path in request.secrets.items():
        words += ["--secret", f"{name}={shown(path)}"]
    return shlex.join([*words, *more])


def refuse_without_trainer(trainer_command: Sequence[str] | None) -> None:
    """Raise where the trainer is not installed."""
    if trainer_command is None and any(importlib.util.find_spec(name) is None for name in ("torch", "finetune_trainer")):
        raise CommandError(
            "the trainer is not installed here", hint="Install it with: pip install '.[cli,trainer]'", exit_code=ExitCode.INTERNAL
        )
