"""What the metrics keep of a FineTuneJob: figures out of its status, bounded, and small enough to be kept for ten thousand of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from finetune_api.constants import ConditionType, NoticeReason
from finetune_operator.metrics import catalogue
from finetune_operator.metrics.catalogue import MOST_CHARACTERS, MOST_MEASURED, MOST_STAGE_METRICS, Metric
from finetune_operator.model import Manifest
from finetune_operator.views import condition, holds, parse_time

NEW: Final = "New"
"""The phase of a job that has no status of ours yet."""
Sample = tuple[Metric, tuple[str, ...], float]
"""Labels are those after namespace and name."""

_PROGRESS: Final = {
    "percent": (catalogue.JOB_PROGRESS, 100),
    "etaSeconds": (catalogue.JOB_ETA, 1),
    "step": (catalogue.JOB_STEP, 1),
    "totalSteps": (catalogue.JOB_STEPS, 1),
    "epoch": (catalogue.JOB_EPOCH, 1),
    "loss": (catalogue.JOB_LOSS, 1),
    "tokensPerSecond": (catalogue.JOB_TOKENS, 1),
    "gpuMemoryBytes": (catalogue.JOB_GPU_MEMORY, 1),
    "gpuMemoryPeakBytes": (catalogue.JOB_GPU_MEMORY_PEAK, 1),
    "gpuMemoryTotalBytes": (catalogue.JOB_GPU_MEMORY_TOTAL, 1),
    "gpuUtilizationPercent": (catalogue.JOB_GPU_UTILIZATION, 100),
}
"""Fields of a status's progress: their metric, and what to divide by."""


_CURRENT: Final = {"learning_rate": catalogue.JOB_LEARNING_RATE, "grad_norm": catalogue.JOB_GRADIENT_NORM}
"""Figures of the stage that runs."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One job, as its status stands."""

    uid: str
    phase: str
    waiting: str | None
    """Why, where it waits."""
    noticed: tuple[str, ...]
    """What its trainer notices, where it runs."""
    failure: str | None
    """Why it failed."""
    finished: float | None
    """When it ended, seconds since the epoch."""
    since: float | None
    """When it last changed in a condition, or was made."""
    gpu_seconds: float
    gpu_seconds_lost: float
    ends: frozenset[tuple[str, str, str]]
    """Job, pod and reason of the attempts that are over; none of a job that has ended."""
    samples: tuple[Sample, ...]


def figures_of(job: Manifest) -> Figures:
    """Read a job's figures."""
    status: Mapping[str, Any] = job.get("status") or {}
    usage = status.get("usage") or {}
    finished = condition(job, ConditionType.FINISHED) if holds(job, ConditionType.FINISHED) else None
    attempts = status.get("attempts") or []
    ended = [each for each in attempts if each.get("finishedAt")]
    changes = [_seconds(each.get("lastTransitionTime")) for each in status.get("conditions") or []]
    return Figures(
        uid=job["metadata"]["uid"],
        phase=status.get("phase") or NEW,
        waiting=_waiting(job),
        noticed=_noticed(job),
        failure=str((status.get("failure") or {}).get("reason") or "Unknown") if holds(job, ConditionType.FAILED) else None,
        finished=_seconds(finished.get("lastTransitionTime")) or 0.0 if finished is not None else None,
        since=max((change for change in changes if change is not None), default=_seconds(job["metadata"].get("creationTimestamp"))),
        gpu_seconds=float(usage.get("gpuSeconds") or 0.0),
        gpu_seconds_lost=float(usage.get("gpuSecondsLost") or 0.0),
        ends=frozenset((str(each.get("job")), str(each.get("pod")), str(each.get("reason"))) for each in ended),
        samples=tuple(_samples(job, status)),
    )


def label(text: object) -> str:
    """Return a label's value: any Unicode that UTF-8 can hold, without control characters, at most 128 characters."""
    kept = "".join(each if each.isprintable() else " " for each in str(text or "")[: MOST_CHARACTERS + 1])
    return kept if len(kept) <= MOST_CHARACTERS else kept[: MOST_CHARACTERS - 1] + "…"


def _waiting(job: Manifest) -> str | None:
    accepted, running = condition(job, ConditionType.ACCEPTED), condition(job, ConditionType.RUNNING)
    if holds(job, ConditionType.FINISHED) or holds(job, ConditionType.SUSPENDED):
        return None
    if accepted is not None and accepted.get("status") == "False":
        return str(accepted.get("reason"))
    return str(running.get("reason")) if running is not None and running.get("status") == "False" else None


def _noticed(job: Manifest) -> tuple[str, ...]:
    running = condition(job, ConditionType.RUNNING) or {}
    silent = (NoticeReason.NO_PROGRESS,) if (running.get("status"), running.get("reason")) == ("True", NoticeReason.NO_PROGRESS) else ()
    warnings = {str(each.get("reason")) for each in (job.get("status") or {}).get("warnings") or []}
    return (*silent, *(reason for reason in NoticeReason if reason in warnings))


def _samples(job: Manifest, status: Mapping[str, Any]) -> Iterator[Sample]:
    summary, progress, usage = status.get("summary") or {}, status.get("progress") or {}, status.get("usage") or {}
    model = ((job.get("spec") or {}).get("model") or {}).get("uri")
    words = (status.get("phase") or NEW, status.get("currentStage"), model, *(summary.get(name) for name in ("methods", "queue", "node")))
    yield catalogue.JOB_INFO, tuple(label(word) for word in words), 1.0
    for name, (metric, divisor) in _PROGRESS.items():
        if progress.get(name) is not None:
            yield metric, (), progress[name] / divisor
    yield from _times(job, status, progress)
    budgets = status.get("budgets") or []
    yield catalogue.JOB_ATTEMPTS, (), float(sum(each.get("attempts", 0) for each in budgets))
    yield catalogue.JOB_PREEMPTIONS, (), float(sum(each.get("preemptions", 0) for each in budgets))
    yield catalogue.JOB_GPU_SECONDS, (), float(usage.get("gpuSeconds") or 0.0)
    yield catalogue.JOB_GPU_SECONDS_LOST, (), float(usage.get("gpuSecondsLost") or 0.0)
    yield from _stages(status)
    yield from _evaluation(status)


def _times(job: Manifest, status: Mapping[str, Any], progress: Mapping[str, Any]) -> Iterator[Sample]:
    finished = condition(job, ConditionType.FINISHED) if holds(job, ConditionType.FINISHED) else None
    starts = [start for each in status.get("attempts") or [] if (start := each.get("startedAt"))]
    moments = {
        catalogue.JOB_CREATED: job["metadata"].get("creationTimestamp"),
        catalogue.JOB_STARTED: min(starts, default=None),
        catalogue.JOB_FINISHED: finished.get("lastTransitionTime") if finished is not None else None,
        catalogue.JOB_REPORTED: progress.get("updatedAt"),
    }
    for metric, moment in moments.items():
        if (seconds := _seconds(moment)) is not None:
            yield metric, (), seconds


def _stages(status: Mapping[str, Any]) -> Iterator[Sample]:
    told = {
        (label(stage.get("name")), label(name)): float(value)
        for stage in status.get("stages") or []
        for name, value in sorted((stage.get("metrics") or {}).items())
    }
    for name, metric in _CURRENT.items():
        if (value := told.get((label(status.get("currentStage")), name))) is not None:
            yield metric, (), value
    for labels, value in list(told.items())[:MOST_STAGE_METRICS]:
        yield catalogue.JOB_STAGE, labels, value


def _evaluation(status: Mapping[str, Any]) -> Iterator[Sample]:
    """Those that a gate reads first."""
    entries = sorted(status.get("evaluation") or [], key=lambda entry: entry.get("gate") is None)
    told = {(label(entry.get("suite")), label(entry.get("metric"))): entry for entry in reversed(entries[:MOST_MEASURED])}
    for labels, entry in told.items():
        after = [stage["value"] for stage in entry.get("stages") or [] if stage.get("value") is not None]
        told_of = {
            "baseline": entry.get("baseline"),
            "last": after[-1] if after else None,
            "seeds": (entry.get("seeds") or {}).get("mean"),
            "direct": (entry.get("direct") or {}).get("value"),
        }
        for point, value in told_of.items():
            if value is not None:
                yield catalogue.JOB_EVALUATION, (*labels, point), float(value)
        if entry.get("gate") is not None:
            yield catalogue.JOB_GATE, labels, float(entry["gate"] == "Passed")


def _seconds(text: object) -> float | None:
    moment = parse_time(text)
    return moment.timestamp() if moment is not None else None
