"""spec.activeDeadlineSeconds: running time, summed over the attempts. Waiting, back-off and suspension are not counted."""

from __future__ import annotations

from datetime import datetime

from finetune_api.constants import ClusterReason, ConditionType
from finetune_operator.case import Case, Step, stopping
from finetune_operator.failure import failing
from finetune_operator.views import condition, parse_time


def deadline(case: Case) -> Step | None:
    """End a job that has run for too long."""
    limit = case.spec.active_deadline_seconds
    if limit is None or running_seconds(case) < limit:
        return None
    reason = ClusterReason.DEADLINE_EXCEEDED
    if ending := stopping(case, reason, f"it has run for activeDeadlineSeconds ({limit} s) and is told to stop"):
        return ending
    return failing(case, reason, f"its pods have run for {limit} s in all, which is activeDeadlineSeconds")


def seconds_left(case: Case) -> float | None:
    """Return the seconds of running time until the deadline, None without one."""
    limit = case.spec.active_deadline_seconds
    return None if limit is None else max(1.0, limit - running_seconds(case))


def running_seconds(case: Case) -> float:
    """Return the running time up to now. A node's clock is believed only as far as our own agrees: an hour's skew must not end a job."""
    live = 0.0
    for attempt in case.history.attempts:
        if attempt.started is not None and attempt.finished is None:
            live += max(0.0, (case.now - _since(case, attempt.started)).total_seconds())
    return case.history.running_seconds + live


def _since(case: Case, started: datetime) -> datetime:
    running = condition(case.seen.job, ConditionType.RUNNING)
    ours = parse_time(running.get("lastTransitionTime")) if running is not None and running.get("status") == "True" else None
    if ours is None:
        return case.now  # it has only just been seen to run
    return ours if started > case.now else max(started, ours)
