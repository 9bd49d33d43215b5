"""What follows an attempt that ended: nothing more, where a repetition can't help or a budget is spent; else the next, after a back-off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from finetune_api.constants import AttemptReason, ClusterReason, ConditionReason, ConditionType
from finetune_operator.attempts import Attempt, Spent
from finetune_operator.case import Case, Step, segment_word, stopping, waiting
from finetune_operator.endings import Charge, charge, is_permanent
from finetune_operator.failure import describe, failing
from finetune_operator.policies.conclude import whole_result
from finetune_operator.views import condition, format_time, parse_time

FIRST_SECONDS: Final = 10
LONGEST_SECONDS: Final = 360
"""As a Job's own back-off: 10 s, doubled each time, at most six minutes."""
_STOPS: Final = "the pod that replaces it is told to stop: "
"""Stands first: a message that is too long loses its end."""
_AT_ONCE: Final = {AttemptReason.NODE_LOST, AttemptReason.SUSPENDED, AttemptReason.SUCCEEDED, AttemptReason.SUPERFLUOUS}


def failed(case: Case) -> Step | None:
    """End the job where its newest attempt can't be mended by another."""
    last, spent = _last(case), _spent(case)
    if case.current is None or last is None:
        return None
    if spent.preemptions > case.spec.retry.max_preemptions:
        return _too_many_disruptions(case, last, spent)
    if last.reason == ClusterReason.LOCAL_STORAGE_EXCEEDED and not _goes_on(case, last, spent):
        # Its Job takes every eviction for the node's doing, and makes pod after pod.
        return stopping(case, last.reason, f"{_STOPS}{describe(case, last)}") or _end(case, last, _said_while_it_stopped(case, last))
    if case.live or case.is_leaving or charge(last.reason or "") is not Charge.ATTEMPT:
        return None
    if is_permanent(last.reason or "", last.exit_code):
        return _end(case, last, describe(case, last))
    if last.reason == ClusterReason.MEMORY_LIMIT_EXCEEDED and not _got_further(case, last):
        return _end(case, last, f"{describe(case, last)}, and it had got no further than the attempt before it")
    if spent.attempts >= case.spec.retry.max_attempts:
        return _end(case, last, f"{describe(case, last)} (attempt {spent.attempts} of {case.spec.retry.max_attempts})")
    return None


def backing_off(case: Case) -> Step | None:
    """Wait before the next attempt."""
    last = _last(case)
    if case.current is None or last is None or last.finished is None or case.live or case.is_leaving:
        return None
    if last.reason in _AT_ONCE:
        return None
    delay = timedelta(seconds=delay_seconds(case.history.of(last.identity.segment)))
    # An end in the future is another clock's: then our own counts, of when we saw it.
    ours = parse_time((condition(case.seen.job, ConditionType.RUNNING) or {}).get("lastTransitionTime"))
    until = (last.finished if last.finished <= case.now or ours is None else ours) + delay
    left = (until - case.now).total_seconds()
    if left <= 0:
        return None
    spent, retry = _spent(case), case.spec.retry
    used = (
        f"attempt {spent.attempts} of {retry.max_attempts} failed"
        if charge(last.reason or "") is Charge.ATTEMPT
        else f"disruption {spent.preemptions} of {retry.max_preemptions}"
    )
    return waiting(
        ConditionReason.BACK_OFF,
        f"{segment_word(case.current)}: {used} ({last.reason}: {describe(case, last)}); the next begins at {format_time(until)}",
        requeue_after=min(left, delay.total_seconds()),
    )


def delay_seconds(attempts: tuple[Attempt, ...]) -> int:
    """Return the back-off after the newest of these attempts: it doubles with each in a row that was charged to the same budget."""
    ended = [charge(attempt.reason or "") for attempt in attempts if attempt.finished is not None]
    row = 0
    for paid in reversed(ended):
        if paid is not ended[-1]:
            break
        row += 1
    return int(min(FIRST_SECONDS * 2 ** min(row - 1, 10), LONGEST_SECONDS)) if row else 0


def got_further(attempts: tuple[Attempt, ...], stages: Sequence[str] = ()) -> bool:
    """Whether the newest attempt got further than any before it, by the steps that they spoke of; without a word it did not.

    stages: their names, in order. Arms come one after the other, each walks the stages, and steps are counted in each stage from 0.
    """
    ended = [attempt for attempt in attempts if attempt.finished is not None]
    places = [
        (each.arm or 0, stages.index(each.stage) if each.stage in stages else 0, each.step) for each in ended if each.step is not None
    ]
    return bool(ended) and ended[-1].step is not None and places[-1] > max(places[:-1], default=(0, 0, 0))


def _got_further(case: Case, last: Attempt) -> bool:
    return got_further(case.history.of(last.identity.segment), [stage.name for stage in case.spec.stages])


def _said_while_it_stopped(case: Case, last: Attempt) -> str:
    """How it ended, as it was told while its pod was still there: with its Job, the kubelet's words are gone."""
    told = str((condition(case.seen.job, ConditionType.RUNNING) or {}).get("message") or "")
    return told.removeprefix(_STOPS) if told.startswith(_STOPS) else describe(case, last)


def _goes_on(case: Case, last: Attempt, spent: Spent) -> bool:
    return spent.attempts < case.spec.retry.max_attempts and _got_further(case, last)


def _last(case: Case) -> Attempt | None:
    return case.history.last_ended(case.current.segment.index) if case.current is not None else None


def _spent(case: Case) -> Spent:
    return case.history.spent.get(case.current.segment.index, Spent()) if case.current is not None else Spent()


def _end(case: Case, last: Attempt, message: str) -> Step:
    told = whole_result(case, last)
    return told if isinstance(told, Step) else failing(case, last.reason or "", message, last, told)


def _too_many_disruptions(case: Case, last: Attempt, spent: Spent) -> Step:
    reason, most = ClusterReason.TOO_MANY_DISRUPTIONS, case.spec.retry.max_preemptions
    if ending := stopping(case, reason, f"it was disrupted {spent.preemptions} times, and is told to stop"):
        return ending
    return failing(case, reason, f"{spent.preemptions} disruptions, and retry.maxPreemptions is {most}; the last was {last.reason}", last)
