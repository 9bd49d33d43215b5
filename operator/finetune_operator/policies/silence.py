"""A pod that runs and does not advance: its trainer says so itself, long before it takes itself for hanging and ends."""

from __future__ import annotations

from finetune_api.constants import ConditionReason, ConditionType, NoticeReason
from finetune_operator.case import Case
from finetune_operator.progress import fold
from finetune_operator.views import PodView, condition


def silence_of(case: Case, pod: PodView) -> str | None:
    """Return what is told of a pod's silence; None where it advances.

    An operator that was restarted has heard nothing yet: what its life before told of this pod stands until the trainer speaks again.
    """
    live = fold.newest(case)
    if live is None:
        before = condition(case.seen.job, ConditionType.RUNNING) or {}
        stands = str(before.get("message") or "")
        return stands if before.get("reason") == ConditionReason.NO_PROGRESS and stands.startswith(f"pod {pod.name} ") else None
    told = next((notice.message for notice in live.notices if notice.reason is NoticeReason.NO_PROGRESS), None)
    return f"pod {pod.name} on node {pod.node}: {told}" if told is not None and live.pod == pod.name else None
