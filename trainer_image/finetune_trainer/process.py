"""One trainer process from its arguments to its exit code.

Whatever happens, `result.json` in the run folder and, in a pod, the journal and the termination message say how it ended. A user's mistake
is a TrainerError and prints no traceback; this is the one place that catches everything else.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from finetune_api import plan
from finetune_api.constants import REASONS, REPORT_PAGES, ExitCode, Reason
from finetune_api.wire import RunResult, TrainerConfig
from finetune_trainer import message
from finetune_trainer.attention import Attentive
from finetune_trainer.backends import needed
from finetune_trainer.checkpoint.identity import claim
from finetune_trainer.checkpoint.lock import hold
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.ending import Ending, clean
from finetune_trainer.errors import Stopped, TrainerError
from finetune_trainer.lean import lean_imports
from finetune_trainer.logs import ProcessLog
from finetune_trainer.outcome import finished, finished_before, read_result
from finetune_trainer.patience import ends_in_time, patience
from finetune_trainer.progress import Reporter, from_environment
from finetune_trainer.pulse import beat
from finetune_trainer.run_folder import RunFolder
from finetune_trainer.watchdog import Hang, Watchdog, beside, watched

log = logging.getLogger("finetune_trainer")


def run_process(arguments: Sequence[str], stop: StopFlag) -> int:
    """Do what the arguments say and return the exit code."""
    process_log = ProcessLog()
    ending = Ending(process_log)
    try:
        options = _parser().parse_args(arguments)
        config = read_config(options.config)
        process_log.mask.learn(config.secret_files)
        if options.command == "report":
            return tell_page(config, options.page)
        if options.command == "read":
            from finetune_trainer.reading import tell_slice

            tell_slice(config, options.slice, sys.stdout.buffer, process_log.mask)
            return ExitCode.SUCCESS
        ending.takes(options.command, config)
        return _segment(options, config, ending, process_log, stop)
    except TrainerError as error:
        return ending.tell(failed(error))
    finally:
        process_log.close()


def _segment(options: argparse.Namespace, config: TrainerConfig, ending: Ending, process_log: ProcessLog, stop: StopFlag) -> int:
    """Run a segment, and tell how it ended."""
    command = options.command
    try:
        with contextlib.ExitStack() as stack:
            folder = RunFolder(Path(config.run_folder))
            if config.pod:
                os.umask(0o002)  # a volume belongs to its fsGroup: who comes later has that group, and perhaps another user
            folder.root.mkdir(parents=True, exist_ok=True)
            if config.pod:
                os.environ.setdefault(
                    "HF_HOME", str(folder.hub)
                )  # read when the hub's client is imported; a runtime may name a shared place
                process_log.also_to(folder.logs, command)
                stack.enter_context(ends_in_time(patience(config.grace_seconds), lambda: os._exit(ending.late())))
            before = finished_before(config) if config.pod else None
            if before is not None:
                return ending.tell_again(before)
            reporter = Attentive(from_environment(), record=ending.silent)
            stack.enter_context(watched(_watchdog(config, reporter, ending)))
            result = run(command, config, ending=ending, reporter=reporter, stop=stop, asks=options)
    except TrainerError as error:
        result = failed(error)
    except Exception as error:
        known = known_error(error, config.run_folder)
        if known is None:
            log.exception("the trainer failed")
        result = failed(known or TrainerError(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}"))
    return ending.tell(result)


def run(
    command: str, config: TrainerConfig, *, ending: Ending, reporter: Reporter, stop: StopFlag, asks: argparse.Namespace | None = None
) -> RunResult:
    """Take the run folder, and do what the command says; torch is imported only by the commands that need it.

    asks: the options of `lr-range`.
    """
    folder = RunFolder(Path(config.run_folder))
    with hold(folder.lock, fenced=config.pod is not None) as held:
        if not held:
            log.warning("another process still holds the run folder; this one works in an epoch of its own, which that one can't reach")
        config = config.model_copy(update={"threads": claim(folder, config).threads})
        refusal = ending.begin()
        if refusal is not None:
            return refusal
        if command == "prepare":
            from finetune_trainer.data.prepare import prepare

            _answer(stop)
            prepare(config, reporter, stop=stop)
            return RunResult(outcome="Succeeded", exit_code=ExitCode.SUCCESS)
        if command == "lr-range" and asks is not None:
            with lean_imports(needed(config.spec.stages)):
                from finetune_trainer import lr_range

            asked = lr_range.Asked(asks.stage, asks.low, asks.high, asks.steps or lr_range.STEPS, asks.run)
            return lr_range.measure(config, asked, reporter=reporter, stop=stop)
        with lean_imports(needed(config.spec.stages)):
            from finetune_trainer import recipe

        beat()
        _answer(stop)
        return (recipe.train if command == "train" else recipe.evaluate)(config, reporter=reporter, stop=stop)


def _watchdog(config: TrainerConfig, reporter: Attentive, ending: Ending) -> Watchdog:
    """Ends this process where nothing in it advances any more, wherever its main thread stands."""

    def end(hang: Hang) -> None:
        os._exit(ending.hung(reporter.hangs(hang), hang.stacks))

    return Watchdog(config.stalled_after_seconds, activity=reporter.activity, say=beside(reporter.silent), end=end)


def _answer(stop: StopFlag) -> None:
    """Imports take seconds: a signal that came in them is answered before anything is made."""
    if stop.requested:
        raise Stopped("before anything was begun")


def tell_page(config: TrainerConfig, number: int) -> int:
    """`report`: a page of the result as this container's message; the first page cleans up. Raises TrainerError."""
    run = RunFolder(Path(config.run_folder))
    result = read_result(run)
    if result is None:
        raise TrainerError(Reason.INTERNAL_ERROR, "the run folder holds no result that can be read", where=str(run.result))
    try:
        message.tell(message.page(result, number).model_dump_json().encode())
    except OSError as error:
        raise TrainerError(Reason.INTERNAL_ERROR, f"the termination message could not be written: {error.strerror}") from error
    if number == 0 and config.pod and config.pod.clean_up and finished(result, config):
        clean(config)
    return ExitCode.SUCCESS


def read_config(path: Path) -> TrainerConfig:
    """Read a TrainerConfig; an unreadable one is InvalidSpec."""
    try:
        return plan.read_config(path.read_bytes())
    except OSError as error:
        raise TrainerError(Reason.INVALID_SPEC, f"the trainer's config cannot be read: {error.strerror}", where=str(path)) from error
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"the trainer does not understand its config: {fields}",
            where=str(path),
            hint="The operator or the command line, and the trainer, must be of the same version.",
        ) from error


def failed(error: TrainerError) -> RunResult:
    """The result that an error stands for."""
    return RunResult(
        outcome="Stopped" if error.reason is Reason.STOPPED else "Failed",
        exit_code=error.exit_code,
        reason=error.reason,
        stage=error.stage,
        step=error.step,
        message=str(error),
        hint=error.hint,
    )


def known_error(error: BaseException, run_folder: str | None) -> TrainerError | None:
    """A full or read-only disk, wherever it was met (safetensors and the tokenizers wrap it in errors of their own), or want of memory."""
    # A failed write names no file; what is written lies in the run folder, but for temporary files.
    where = (error.filename if isinstance(error, OSError) else None) or run_folder
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left on device" in str(error):
        return TrainerError(Reason.STORAGE_FULL, "no space is left on the device", where=where)
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return TrainerError(Reason.STORAGE_UNWRITABLE, f"it can't be read or written by this user: {error.strerror}", where=where)
    return REASON_OF_MEMORY_ERROR if isinstance(error, MemoryError) else None


REASON_OF_MEMORY_ERROR = TrainerError(Reason.OUT_OF_MEMORY, "the process ran out of memory", hint=REASONS[Reason.OUT_OF_MEMORY].hint)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit code 2, argparse's, means nothing to whoever reads exit codes."""
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"the trainer does not understand its arguments: {message}",
            hint="The operator or the command line, and the trainer, must be of the same version.",
        )


def _parser() -> _Parser:
    parser = _Parser(prog="finetune_trainer", description="Run one segment of a job, tell its result, or print what it left.")
    parser.add_argument("command", choices=("prepare", "train", "evaluate", "lr-range", "report", "read"))
    parser.add_argument("--config", type=Path, required=True, help="a TrainerConfig as JSON")
    parser.add_argument("--page", type=int, choices=range(REPORT_PAGES), default=0, help="which part of the result to tell (report)")
    parser.add_argument("--slice", type=int, default=0, help="which part of what was asked for to print (read)")
    parser.add_argument("--stage", help="which stage to test (lr-range)")
    parser.add_argument("--low", type=float, help="the first rate (lr-range)")
    parser.add_argument("--high", type=float, help="the last rate (lr-range)")
    parser.add_argument("--steps", type=int, help="how many rates (lr-range)")
    parser.add_argument("--run", type=Path, help="the job's own run folder (lr-range)")
    return parser
