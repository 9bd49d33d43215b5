"""Suspension: the Job is deleted, which makes its pod save and stop. Suspended only when no pod is left; resuming makes the next Job, uncharged.

There is one way, with a queue or without: what Kueue does with `Job.spec.suspend` is not touched.
"""

from __future__ import annotations

from finetune_api.constants import AttemptReason, ConditionReason, ExitCode
from finetune_api.v1alpha1.status import Phase
from finetune_operator.case import Case, Step, stopping


def suspended(case: Case) -> Step | None:
    """Stop what runs, and say what is known of its checkpoint."""
    if not case.spec.suspend:
        return None
    words = "the trainer was told to save and stop"
    if ending := stopping(case, AttemptReason.SUSPENDED, words, phase=Phase.SUSPENDING, reason=ConditionReason.SUSPENDING):
        return ending
    reason, message = _checkpoint(case)
    return Step(Phase.SUSPENDED, reason, message, suspended=True)


def _checkpoint(case: Case) -> tuple[ConditionReason, str]:
    ran = [attempt for attempt in case.history.attempts if attempt.started is not None]
    if not ran:
        return ConditionReason.NOT_STARTED, "it had not begun; spec.suspend: false starts it"
    if ran[-1].exit_code in (ExitCode.STOPPED, ExitCode.SUCCESS):
        return ConditionReason.CHECKPOINT_VERIFIED, "its newest checkpoint is verified; spec.suspend: false goes on from there"
    return (
        ConditionReason.CHECKPOINT_UNCONFIRMED,
        "its last words were not heard; spec.suspend: false goes on from the newest checkpoint that is whole",
    )
