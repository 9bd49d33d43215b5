"""How a run ended, from what its process left behind. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from finetune_api.constants import REASONS, ClusterReason, ExitCode, Reason
from finetune_api.wire import RunResult
from finetune_cli.supervisor import Ending

KILL_HINT = (
    "Somebody, or the kernel for want of memory (`dmesg` says so), killed the trainer. Nothing saved is lost: the same command goes on from "
    "the last checkpoint. Against want of memory: a smaller perDeviceTrainBatchSize with more gradientAccumulationSteps, or gradientCheckpointing."
)
STORAGE_HINT = "Free space in the run folder or enlarge its volume, or make it writable for this user, then start again: it goes on from the last checkpoint."


@dataclass(frozen=True)
class Outcome:
    """What is told to the user, and the command's exit code."""

    result: RunResult | None
    exit_code: int
    log: Path | None = None
    already: bool = False
    """The run had finished before: nothing was started."""
    show_log: bool = False
    """Whether the end of the log explains more than the message."""


def interpret(ending: Ending, result: RunResult | None, log: Path) -> Outcome:
    """Turn a process's end and the result that it wrote (None: it wrote none) into what to tell."""
    if result is not None and ending.code == result.exit_code:
        internal = result.reason in (None, Reason.INTERNAL_ERROR) and result.outcome == "Failed"
        return Outcome(result, ending.code, log, show_log=internal)
    if ending.code == ExitCode.SUCCESS:
        return Outcome(
            _failed(ExitCode.INTERNAL, Reason.INTERNAL_ERROR, "the trainer ended without a result"), ExitCode.INTERNAL, log, show_log=True
        )
    if ending.code == 128 + signal.SIGTERM and ending.asked:
        message = "before there was anything to save"
        return Outcome(
            RunResult(outcome="Stopped", exit_code=ExitCode.STOPPED, reason=Reason.STOPPED, message=message), ExitCode.STOPPED, log
        )
    if ending.signal is not None:
        return Outcome(_killed(ending), ending.code, log, show_log=ending.signal is not signal.SIGKILL)
    if ending.code == ExitCode.STORAGE:
        message = f"{log.parent.parent}: the run folder's storage is full, or can't be written: not even the result could be"
        return Outcome(_failed(ExitCode.STORAGE, Reason.STORAGE_FULL, message, STORAGE_HINT), ending.code, log, show_log=True)
    reason = _only_reason(ending.code)
    message = f"the trainer ended with exit code {ending.code} before it could write its result"
    code = ExitCode(ending.code) if ending.code in list(ExitCode) else ExitCode.INTERNAL
    return Outcome(_failed(code, reason, message), ending.code, log, show_log=True)


def _killed(ending: Ending) -> RunResult:
    assert ending.signal is not None
    if ending.asked:
        return _failed(
            ExitCode.INTERNAL, None, "killed on a second Ctrl-C, before it had saved", "The same command goes on from the last checkpoint."
        )
    name = ending.signal.name
    if ending.signal is signal.SIGKILL:
        return _failed(
            ExitCode.INTERNAL, ClusterReason.UNKNOWN_EXIT, f"the trainer was killed ({name}, exit code {ending.code})", KILL_HINT
        )
    return _failed(ExitCode.INTERNAL, Reason.INTERNAL_ERROR, f"the trainer died of {name} (exit code {ending.code})")


def _only_reason(code: int) -> Reason | None:
    """The reason, where the exit code stands for one only."""
    reasons = [reason for reason, info in REASONS.items() if info.exit_code == code]
    return reasons[0] if len(reasons) == 1 else None


def _failed(code: ExitCode, reason: Reason | ClusterReason | None, message: str, hint: str = "") -> RunResult:
    shown = hint or REASONS[reason if isinstance(reason, Reason) else Reason.INTERNAL_ERROR].hint
    return RunResult(outcome="Failed", exit_code=code, reason=reason, message=message, hint=shown)
