"""The command's errors.

Exception
└── CommandError        the command ends with this message, hint and exit code; never a traceback
"""

from __future__ import annotations

from enum import IntEnum

from finetune_api.constants import REASONS, ExitCode, Reason


class ClusterExit(IntEnum):
    """How a command that speaks to a cluster ends, beside the exit codes that it shares with the trainer."""

    JOB_FAILED = 3
    TIMED_OUT = 4
    NOT_FOUND = 5
    FORBIDDEN = 6
    UNREACHABLE = 7
    CONFLICT = 8
    NOT_INSTALLED = 9


class CommandError(Exception):
    """What was wrong, and what to do about it."""

    def __init__(self, message: str, *, hint: str = "", exit_code: int = ExitCode.BAD_CONFIG, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = int(exit_code)
        self.reason = reason

    @classmethod
    def of(cls, reason: Reason, message: str, *, hint: str = "") -> CommandError:
        """The error that the trainer would have ended with for this reason."""
        return cls(message, hint=hint or REASONS[reason].hint, exit_code=REASONS[reason].exit_code, reason=reason)
