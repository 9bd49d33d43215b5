"""From a pod's newest report to `status.progress` and what a stage shows: pure, and the same report gives the same bytes.

The percentage holds at its maximum, because a person reads it as what is done; the step is the truth, also after a resume. The time left is
the operator's: by the pace of the last minutes, and before there is one (right after a resume) by that of the whole job so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from finetune_api import arms
from finetune_api.constants import LIVE_METRICS, NoticeReason
from finetune_api.wire import Activity, ProgressUpdate
from finetune_operator.case import Case, Step
from finetune_operator.model import Live
from finetune_operator.views import format_time, order

Fields = dict[str, Any]
MOST_RUNNING: Final = 99
"""Percent of a job that has not succeeded."""
LONGEST: Final = 10 * 365 * 86400
_WHILE_RUNNING: Final = ("arm", "etaSeconds", "eta", "tokensPerSecond", "gpuMemoryBytes", "gpuUtilizationPercent")
_DIGITS: Final = 4


def newest(case: Case) -> Live | None:
    """Return what the newest attempt's pod reported, None where only an older one spoke."""
    live = case.seen.live
    if live is None:
        return None
    segments = [job for job in case.jobs if job.identity.segment is not None]
    latest = max(segments, key=lambda job: order(job.identity), default=None)
    return live if latest is not None and latest.name == live.job else None


def progress(case: Case, step: Step, old: Mapping[str, Any], live: Live | None) -> Fields:
    """Return `status.progress`. `live` None: as it stands, without what is true only while something runs."""
    before: Fields = dict(old.get("progress") or {})
    whole = {"percent": 100} if step.succeeded else {}
    if live is None:
        return (before if step.running and _has_spoken(case) else _standing(before)) | whole
    share = live.update.percent
    told: Fields = {**_standing(before), "updatedAt": format_time(live.received)}
    if share is not None:
        told["percent"] = max(int(before.get("percent") or 0), min(MOST_RUNNING, int(share)))
    if (training := live.training) is not None:
        told |= {"step": training.done, "totalSteps": training.total, "epoch": rounded(training.epoch), "loss": rounded(training.loss)}
    told |= _gpu(live.update, running=step.running)
    if step.running:
        told["arm"] = arms.words(case.spec, live.update.arm) or None
        if live.update.activity is Activity.TRAIN:
            told["tokensPerSecond"] = rounded(live.training.tokens_per_second) if live.training is not None else None
        if share is not None and (left := seconds_left(share, live.pace, case.history.live_seconds(case.now))) is not None:
            told |= {"etaSeconds": left, "eta": duration(left)}
    return {name: value for name, value in told.items() if value is not None} | whole


def _has_spoken(case: Case) -> bool:
    """Whether the newest attempt has trained: what stands is of an earlier one until it does, or its report is still to come again."""
    return bool(case.history.attempts) and case.history.attempts[-1].step is not None


def _gpu(update: ProgressUpdate, *, running: bool) -> Fields:
    """Return what is said of the GPU. The most that was taken, and what there is, outlast the run: whoever chooses a GPU for the next asks for them."""
    figures = {
        "gpuMemoryPeakBytes": update.gpu_memory_peak_bytes,
        "gpuMemoryTotalBytes": update.gpu_memory_total_bytes,
        **({"gpuMemoryBytes": update.gpu_memory_bytes, "gpuUtilizationPercent": update.gpu_utilization_percent} if running else {}),
    }
    return {name: value for name, value in figures.items() if value is not None}


def warnings(step: Step, old: Mapping[str, Any], live: Live | None) -> list[Fields]:
    """Return `status.warnings`: what the trainer notices while it runs, each since it was first heard of. A silence is a condition's reason.

    As long as nobody has reported, right after the operator's start, what stands is kept.
    """
    before = {each.get("reason"): each for each in old.get("warnings") or []}
    if not step.running:
        return []
    if live is None:
        return list(before.values())
    told = {notice.reason: notice.message for notice in live.notices if notice.reason is not NoticeReason.NO_PROGRESS}
    return [
        before[reason] if reason in before else {"reason": reason.value, "message": message, "since": format_time(live.received)}
        for reason, message in told.items()
    ]


def stages(case: Case, live: Live | None) -> dict[str, Fields]:
    """Return what a report says of stages, by name: those before the one that it speaks of are done, and its metrics."""
    if live is None or case.current is None:
        return {}
    names = [stage.name for stage in case.spec.stages]
    stage = live.update.stage or (live.training.stage if live.training is not None else None)
    if stage not in names or stage not in case.current.segment.stages:
        return {}
    mine = [name for name in names if name in case.current.segment.stages]
    told: dict[str, Fields] = {name: {"phase": "Succeeded"} for name in mine[: mine.index(stage)]}
    if live.update.arm is not None:  # the arms before it have been through all of them
        told |= {stage: {"phase": "Running"}, **{name: {"phase": "Pending"} for name in mine[mine.index(stage) + 1 :]}}
    if live.training is not None and live.training.stage in (stage, None):
        figures = {name: getattr(live.training, name) for name in LIVE_METRICS}
        told[stage] = told.get(stage, {}) | {
            "metrics": {name: value for name, each in {**figures, **live.metrics}.items() if (value := rounded(each)) is not None}
        }
    return told


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two progresses tell the same, but for when it was said."""
    return _timeless(one) == _timeless(other)


def seconds_left(share: float, pace: float | None, running: float) -> int | None:
    """Return the seconds to the job's end. share: percent done; pace: percent a second; running: seconds of all attempts so far."""
    if pace is None:
        pace = share / running if running > 0 else 0.0
    left = (100 - share) / pace if pace > 0 else math.inf
    return round(left) if left <= LONGEST else None


def duration(seconds: int) -> str:
    """Return a time for people, two units at most: 45s, 12m30s, 1h5m, 3d2h."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour}h"
    if hours:
        return f"{hours}h{minute}m"
    return f"{minutes}m{second}s" if minutes else f"{second}s"


def rounded(value: float | None) -> float | None:
    """Return a figure with four digits: more would be noise in a column, and a difference in each write."""
    return float(f"{value:.{_DIGITS}g}") if value is not None else None


def _standing(progress: Fields) -> Fields:
    return {name: value for name, value in progress.items() if name not in _WHILE_RUNNING}


def _timeless(progress: Mapping[str, Any]) -> Fields:
    return {name: value for name, value in progress.items() if name not in ("updatedAt", "etaSeconds", "eta")}
