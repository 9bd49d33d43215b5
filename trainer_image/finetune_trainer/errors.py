"""The trainer's errors.

Exception
└── TrainerError        the run ends with this reason, exit code and hint; never a traceback
    └── Stopped         SIGTERM or Ctrl-C was answered: saved, exit 75

Anything else is a fault of the trainer: InternalError, exit 1, with the traceback in the log.
"""

from __future__ import annotations

from finetune_api.constants import REASONS, ExitCode, Reason


class TrainerError(Exception):
    """A failure that explains itself: what was wrong, where (`where`: field path, file and line, stage), what to do (`hint`)."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        where: str | None = None,
        stage: str | None = None,
        step: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.reason = reason
        self.where = where
        self.stage = stage
        self.step = step
        self.hint = hint or REASONS[reason].hint

    @property
    def exit_code(self) -> ExitCode:
        return REASONS[self.reason].exit_code


class Stopped(TrainerError):
    """The run was told to stop and has committed a checkpoint (or had nothing new to commit)."""

    def __init__(self, message: str, *, stage: str | None = None, step: int | None = None) -> None:
        super().__init__(Reason.STOPPED, message, stage=stage, step=step)
