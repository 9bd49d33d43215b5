"""The conditions of a job, kept so that kstatus (and with it Argo CD and Flux) reads every state rightly.

Stalled if and only if the job failed or is not accepted; Reconciling if and only if it is neither finished, nor suspended, nor stalled. A
condition keeps its time while its status stays, and times never go back, whatever a clock does.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from finetune_api.constants import MAX_MESSAGE, ConditionReason, ConditionType
from finetune_api.v1alpha1.status import Phase
from finetune_operator.case import Step
from finetune_operator.views import format_time, parse_time

Said = tuple[bool, str, str]
"""Status, reason, message."""


def conditions(step: Step, old: Mapping[str, Any], *, now: datetime, generation: int) -> list[dict[str, Any]]:
    """Return the eight conditions. `old` is the status that stands."""
    stand = {each.get("type"): each for each in old.get("conditions") or []}
    times = [moment for each in stand.values() if (moment := parse_time(each.get("lastTransitionTime"))) is not None]
    latest = format_time(max([now, *times]))
    written = []
    for kind, (holds, reason, message) in _said(step).items():
        status = "True" if holds else "False"
        before = stand.get(kind) or {}
        kept = before.get("lastTransitionTime") if before.get("status") == status else None
        written.append(
            {
                "type": kind.value,
                "status": status,
                "reason": str(reason),
                "message": message[:MAX_MESSAGE],
                "lastTransitionTime": kept or latest,
                "observedGeneration": generation,
            }
        )
    return written


def _said(step: Step) -> dict[ConditionType, Said]:
    failed, finished = step.failure is not None, step.succeeded or step.failure is not None
    reason = step.failure.reason if step.failure is not None else str(step.reason)
    stalled = failed or not step.accepted
    reconciling = not (finished or step.suspended or stalled)
    end: Said = (True, reason, step.message)
    not_yet: Said = (False, ConditionReason.NOT_FINISHED, "it goes on")
    return {
        ConditionType.ACCEPTED: (True, ConditionReason.ACCEPTED, "it can run here") if step.accepted else (False, reason, step.message),
        ConditionType.RUNNING: (step.running, reason, step.message),
        ConditionType.SUSPENDED: _suspended(step, reason),
        ConditionType.COMPLETE: end if step.succeeded else (False, reason, step.message) if failed else not_yet,
        ConditionType.FAILED: end if failed else (False, reason, step.message) if step.succeeded else not_yet,
        ConditionType.FINISHED: end if finished else not_yet,
        ConditionType.STALLED: (True, reason, step.message)
        if stalled
        else (False, ConditionReason.NOT_STALLED, "nothing stands in its way for good"),
        ConditionType.RECONCILING: (True, reason, step.message)
        if reconciling
        else (False, ConditionReason.NOT_RECONCILING, "nothing is under way"),
    }


def _suspended(step: Step, reason: str) -> Said:
    if step.suspended:
        return (True, reason, step.message)
    if step.phase is Phase.SUSPENDING:
        return (False, ConditionReason.SUSPENDING, step.message)
    return (False, ConditionReason.NOT_SUSPENDED, "spec.suspend is false")
