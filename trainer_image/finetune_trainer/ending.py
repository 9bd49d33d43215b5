"""How a process tells its end: the result in the run folder, a line in the journal, and, in a pod, the termination message.

The order matters. The result is on disk before the message says so, and only then the rest of the folder may go: a pod that is killed in
between is replaced, and its replacement finds the result and tells it again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from finetune_api.constants import CLUSTER_HINTS, MAX_LOG_LINES, ClusterReason, ExitCode, Reason
from finetune_api.shown import safe, safe_line
from finetune_api.wire import RunResult, TrainerConfig
from finetune_trainer import message
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.journal import Event, Journal
from finetune_trainer.checkpoint.starts import Starts, starts
from finetune_trainer.errors import TrainerError
from finetune_trainer.logs import LONGEST_LINE, ProcessLog, last_lines
from finetune_trainer.outcome import complete, finished
from finetune_trainer.run_folder import RunFolder
from finetune_trainer.tidy import tidy, without_checkpoints

log = logging.getLogger("finetune_trainer")
HUNG_SECONDS: Final = 20.0
"""What a process that hangs gives the run folder and the log to take its end."""
NOT_OURS = (Reason.RUN_FOLDER_BUSY, Reason.RUN_FOLDER_MISMATCH)
"""Ends of a process to which the run folder does not belong: it leaves no result there."""


class Ending:
    """The end of this process; told once, by whichever thread comes first."""

    def __init__(self, process_log: ProcessLog) -> None:
        self._log = process_log
        self._lock = threading.Lock()
        self._code: int | None = None
        self._config: TrainerConfig | None = None
        self._command = ""
        self._begun = False

    def takes(self, command: str, config: TrainerConfig) -> None:
        """From here on the end belongs to this command and this run folder."""
        self._command, self._config = command, config

    def begin(self) -> RunResult | None:
        """Count this start in the journal. Returns how the process ends at once, where that is one too many. Call it with the lock held."""
        config = self._of()
        journal = _journal(config)
        journal.append(Event.PROCESS, epoch=0, **self._who(config))
        self._begun = True
        return over_the_caps(starts(journal.read(), segment=config.segment.index, command=self._command), config) if config.pod else None

    def silent(self, text: str) -> None:
        """Keep for the report that nothing advanced for long, and then it did again; whatever hinders that costs no more than the line."""
        if not self._begun:
            return
        config = self._of()
        try:
            _journal(config).append(Event.SILENCE, epoch=0, message=text, **self._who(config))
        except (OSError, TrainerError) as error:
            log.warning("the run's journal could not be written: %s", error)

    def tell(self, result: RunResult) -> int:
        """Leave the result everywhere, clean up where nothing is left to tell, and return the exit code."""
        with self._lock:
            if self._code is None:
                self._code = self._tell(result)
            return self._code

    def tell_again(self, result: RunResult) -> int:
        """For a pod that replaces one which had succeeded: nothing is done, and the same is said."""
        told = self._send(result)
        self._tidy(told)
        log.info("the job has succeeded already")
        return int(result.exit_code)

    def late(self) -> int:
        """The process was told to stop and is still in the middle of something. Returns the exit code to leave with."""
        text = "in the middle of something that could not be stopped in time; the last checkpoint is what it goes on from"
        return self.tell(RunResult(outcome="Stopped", exit_code=ExitCode.STOPPED, reason=Reason.STOPPED, message=text))

    def hung(self, result: RunResult, stacks: str, *, seconds: float = HUNG_SECONDS) -> int:
        """As `tell`, for a process that hangs, with every thread's stack in the log. The run folder, or whoever reads the log, may be what
        hangs: so all that may wait for them is done in another thread, and where it takes longer than `seconds`, the termination message
        alone says how it ended. Returns the exit code to leave with."""

        def everything() -> None:
            log.error("nothing advances any more; this is where every thread stands, the innermost call first:\n%s", stacks)
            self.tell(result)

        if not _done_within(seconds, everything):
            # The stacks are not in the log: the end of them is of more use than of a log that says nothing of it.
            tail = last_lines([safe_line(line, LONGEST_LINE) for line in stacks.split("\n")][-MAX_LOG_LINES:], message.LOG_LIMIT)
            bare = result.model_copy(update={"message": safe(self._log.mask(result.message)), "log_tail": tail})
            _done_within(seconds, lambda: self._send(bare))
        return int(result.exit_code) if self._code is None else self._code

    def _tell(self, result: RunResult) -> int:
        result = self._completed(result)
        self._keep(result)
        told = self._send(result)
        (log.info if result.outcome == "Succeeded" else log.error)("%s %s", result.reason or result.outcome, result.message)
        self._tidy(told)
        return int(result.exit_code)

    def _completed(self, result: RunResult) -> RunResult:
        """With what the run folder and the log add, and without what must not be seen."""
        config = self._config
        if config is not None and result.reason not in NOT_OURS:
            try:
                result = complete(result, config, prepared=self._command == "prepare")
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.error("the run folder could not be read for the result: %s", error)
        if config is not None and config.pod and config.pod.clean_up and finished(result, config):
            result = without_checkpoints(result)
        tail = self._log.tail(message.LOG_LIMIT) if result.outcome == "Failed" else []
        return result.model_copy(
            update={"message": safe(self._log.mask(result.message)), "hint": safe(self._log.mask(result.hint)), "log_tail": tail}
        )

    def _keep(self, result: RunResult) -> None:
        """result.json, and the journal's last line of this process."""
        config = self._config
        if config is None or result.reason in NOT_OURS:
            return
        try:
            _replace(RunFolder(Path(config.run_folder)).result, result)
            if self._begun:
                end = {"outcome": result.outcome, "reason": result.reason, "exitCode": int(result.exit_code), "message": result.message}
                _journal(config).append(Event.END, epoch=0, **self._who(config), **end)
        except (OSError, TrainerError) as error:
            log.error("the result could not be written: %s", error)

    def _send(self, result: RunResult) -> RunResult:
        """The termination message; returns what was told."""
        told = message.fitted(result)
        try:
            message.tell(message.encoded(told))
        except OSError as error:
            log.error("the termination message could not be written: %s", error)
        return told

    def _tidy(self, told: RunResult) -> None:
        config = self._config
        if config is None or config.pod is None or not config.pod.clean_up or told.truncated or not finished(told, config):
            return
        clean(config)

    def _who(self, config: TrainerConfig) -> dict[str, object]:
        return {
            "segment": config.segment.index,
            "command": self._command,
            "attempt": config.pod.attempt if config.pod else None,
        }

    def _of(self) -> TrainerConfig:
        assert self._config is not None, "takes() comes first"
        return self._config


def over_the_caps(counted: Starts, config: TrainerConfig) -> RunResult | None:
    """How a process ends that the job's budget does not allow. Pure."""
    retry, stages = config.spec.retry, ", ".join(config.segment.stages)
    if counted.disruptions > retry.max_preemptions:
        return RunResult(
            outcome="Failed",
            exit_code=ExitCode.INTERNAL,
            reason=ClusterReason.TOO_MANY_DISRUPTIONS,
            message=f"segment {stages} was disrupted {counted.disruptions} times, and retry.maxPreemptions is {retry.max_preemptions}",
            hint=CLUSTER_HINTS[ClusterReason.TOO_MANY_DISRUPTIONS],
        )
    if len(counted.failures) < retry.max_attempts:
        return None
    last = counted.failures[-1]
    text = f"{len(counted.failures)} attempts of segment {stages} failed, and retry.maxAttempts is {retry.max_attempts}; the last: {last['message']}"
    return RunResult.model_validate({"outcome": "Failed", "exitCode": last["exitCode"], "reason": last["reason"], "message": text})


def _done_within(seconds: float, action: Callable[[], object]) -> bool:
    """Whether an action was done in time; it is not waited for any longer."""
    thread = threading.Thread(target=action, name="ending", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def clean(config: TrainerConfig) -> None:
    """Remove what nobody needs any more; a failure costs space, not the result."""
    try:
        tidy(RunFolder(Path(config.run_folder)))
    except (OSError, TrainerError) as error:
        log.error("the run folder could not be cleaned: %s", error)


def _journal(config: TrainerConfig) -> Journal:
    return Journal(RunFolder(Path(config.run_folder)).journal, FileLayer())


def _replace(target: Path, result: RunResult) -> None:
    temporary = target.with_suffix(".tmp")
    temporary.write_text(result.model_dump_json(exclude_none=True, indent=2) + "\n")
    temporary.replace(target)
