"""The attempts of a job: what its status recorded, and what its Jobs and pods say now.

A pod is an attempt: a Job replaces a disrupted pod by itself, so one Job may have several. What is over and recorded stays as it is; what is
new is charged once, when it is first seen to be over. So a status that was lost or overwritten is counted again from the Jobs, which stay.

When a pod started and ended, its node says, whose clock may be off. A start is put between the moment at which the pod was given to the
node and now, and the end is moved along with it: so an hour of skew is neither in what an attempt cost nor in when its back-off is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from finetune_api.constants import MAX_ATTEMPTS_LISTED, AttemptReason
from finetune_operator.endings import Charge, charge, ending
from finetune_operator.model import Live, Manifest
from finetune_operator.names import JobName, parse_job_name
from finetune_operator.views import JobView, PodView, format_time, order, parse_time

_FIELDS: Final = {
    "job": "job",
    "pod": "pod",
    "node": "node",
    "bootId": "boot_id",
    "reason": "reason",
    "exitCode": "exit_code",
    "resumedFromStep": "resumed_from_step",
    "stepsLost": "steps_lost",
    "arm": "arm",
    "stage": "stage",
    "step": "step",
}


@dataclass(frozen=True)
class Attempt:
    """One pod at work on a segment. With a reason and no end, it is being ended for that reason."""

    identity: JobName
    job: str
    pod: str
    """Empty where its Job ended and no pod was ever seen."""
    node: str | None = None
    boot_id: str | None = None
    started: datetime | None = None
    finished: datetime | None = None
    reason: str | None = None
    exit_code: int | None = None
    resumed_from_step: int | None = None
    steps_lost: int | None = None
    arm: int | None = None
    stage: str | None = None
    step: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        return (self.job, self.pod)

    def told(self, live: Live | None) -> Attempt:
        """Return it as far as it got by its last report; as it is, where that is another pod's."""
        training = live.training if live is not None and (live.job, live.pod) == self.key else None
        return replace(self, arm=training.arm, stage=training.stage, step=training.done) if training is not None else self

    @property
    def seconds(self) -> float:
        """How long it ran; never less than nothing, whatever the clocks say."""
        if self.started is None or self.finished is None:
            return 0.0
        return max(0.0, (self.finished - self.started).total_seconds())

    def status(self, segment: str) -> dict[str, Any]:
        """Write it into a job's status."""
        times = {"startedAt": format_time(self.started), "finishedAt": format_time(self.finished)}
        fields = {name: getattr(self, attribute) for name, attribute in _FIELDS.items()}
        written = {"segment": segment, "number": self.identity.number, **fields, **times}
        return {name: value for name, value in written.items() if value is not None and value != ""}


@dataclass(frozen=True)
class Spent:
    """What a segment has used of the budgets."""

    attempts: int = 0
    preemptions: int = 0

    def plus(self, reason: str) -> Spent:
        """Add an end."""
        paid = charge(reason)
        return Spent(self.attempts + (paid is Charge.ATTEMPT), self.preemptions + (paid is Charge.PREEMPTION))


@dataclass(frozen=True)
class History:
    """Every attempt known, in order, and what they cost."""

    attempts: tuple[Attempt, ...]
    spent: Mapping[int | None, Spent]
    """By index of the segment; None is the report."""
    running_seconds: float
    """Of the attempts that are over."""
    gpu_seconds: float
    """Of the attempts that are over."""
    gpu_seconds_lost: float = 0.0
    """Of these, those whose work a later attempt did again, as far as trainers told."""

    def of(self, segment: int | None) -> tuple[Attempt, ...]:
        """Return the attempts at a segment."""
        return tuple(attempt for attempt in self.attempts if attempt.identity.segment == segment)

    def succeeded(self, segment: int | None) -> bool:
        """Whether an attempt at this segment, or at a later one, shows that it is done."""
        if segment is not None and any((attempt.identity.segment or 0) > segment for attempt in self.attempts):
            return True
        return any(attempt.reason == AttemptReason.SUCCEEDED and attempt.finished is not None for attempt in self.of(segment))

    def highest(self, segment: int | None) -> int:
        """Return the greatest number of an attempt at this segment."""
        return max((attempt.identity.number for attempt in self.of(segment)), default=0)

    def last_ended(self, segment: int | None) -> Attempt | None:
        """Return the newest attempt at this segment that is over."""
        ended = [attempt for attempt in self.of(segment) if attempt.finished is not None]
        return ended[-1] if ended else None

    def live_seconds(self, now: datetime) -> float:
        """Return the running time up to now, of what still runs too."""
        live = [(now - each.started).total_seconds() for each in self.attempts if each.started is not None and each.finished is None]
        return self.running_seconds + sum(max(0.0, seconds) for seconds in live)

    def reporting(self, live: Live | None) -> History:
        """Say of the attempt that reported last how far it has got, where it is not over."""
        changed = tuple(attempt if attempt.finished is not None else attempt.told(live) for attempt in self.attempts)
        return replace(self, attempts=changed)

    def intending(self, reasons: Mapping[str, str]) -> History:
        """Say of attempts that are not over why they are being ended; by the name of their Job."""
        changed = tuple(
            replace(attempt, reason=attempt.reason or reasons[attempt.job])
            if attempt.finished is None and attempt.job in reasons
            else attempt
            for attempt in self.attempts
        )
        return replace(self, attempts=changed)


@dataclass(frozen=True)
class Sight:
    """What a history is made from."""

    manifest: Manifest
    jobs: tuple[JobView, ...]
    pods: tuple[PodView, ...]
    now: datetime
    boot_ids: Mapping[str, str]
    """Of the nodes that were read, by name."""
    suspending: bool
    queued: bool
    """Whether Kueue may suspend its Jobs."""
    gpus: Callable[[int | None], int]
    """GPUs of a pod of a segment."""
    live: Live | None = None
    """What a pod reported last."""


def history(sight: Sight) -> History:
    """Put together what is recorded and what is seen."""
    status = sight.manifest.get("status") or {}
    recorded = _recorded(sight.manifest, status.get("attempts"))
    known = {attempt.key: attempt for attempt in recorded}
    seen = {attempt.key: attempt for attempt in _seen(sight, known) if not _forgotten(attempt, recorded)}
    gone = {key: _vanished(sight, attempt) for key, attempt in known.items() if key not in seen}
    merged = sorted({**gone, **seen}.values(), key=_order)
    new = [attempt for attempt in merged if attempt.finished is not None and not _was_over(known.get(attempt.key))]
    usage = status.get("usage") or {}
    spent = _spent(status.get("budgets"))
    for attempt in new:
        spent[attempt.identity.segment] = spent.get(attempt.identity.segment, Spent()).plus(attempt.reason or "")
    return History(
        attempts=tuple(merged),
        spent=spent,
        running_seconds=float(usage.get("runningSeconds") or 0.0) + sum(attempt.seconds for attempt in new),
        gpu_seconds=float(usage.get("gpuSeconds") or 0.0) + sum(attempt.seconds * sight.gpus(attempt.identity.segment) for attempt in new),
        gpu_seconds_lost=float(usage.get("gpuSecondsLost") or 0.0)
        + sum(_seconds_lost(attempt, merged) * sight.gpus(attempt.identity.segment) for attempt in new),
    )


def _seconds_lost(attempt: Attempt, attempts: Sequence[Attempt]) -> float:
    """Seconds of the attempt before this one whose work this one did again.

    Their share is that of the steps which were done again in those which had been done, counted from the checkpoint that each went on
    from; what came before a hand-over is not told, so that an attempt whose only steps in a stage were lost counts as lost whole. In a stage,
    or an arm, that it reached itself it began with the first step, wherever it had begun before.
    """
    same = [each for each in attempts if each.identity.segment == attempt.identity.segment]
    at = same.index(attempt)
    if not attempt.steps_lost or at == 0:
        return 0.0
    before = same[at - 1]
    earlier = next((each for each in reversed(same[: at - 1]) if each.step is not None), before)
    moved_on = before.step is not None and (earlier.arm or 0, earlier.stage) != (before.arm or 0, before.stage)
    begun = 0 if moved_on else before.resumed_from_step or 0
    kept = max(0, (attempt.resumed_from_step or 0) - begun)
    return before.seconds * attempt.steps_lost / (attempt.steps_lost + kept)


def _order(attempt: Attempt) -> tuple[object, ...]:
    return (*order(attempt.identity), attempt.started is None, attempt.started.timestamp() if attempt.started else 0.0, attempt.pod)


def _was_over(attempt: Attempt | None) -> bool:
    return attempt is not None and attempt.finished is not None


def _forgotten(attempt: Attempt, recorded: list[Attempt]) -> bool:
    """Whether an attempt is older than the oldest of a full list: it was counted, and dropped."""
    return len(recorded) >= MAX_ATTEMPTS_LISTED and _order(attempt) < min(_order(each) for each in recorded)


def _recorded(manifest: Manifest, entries: object) -> list[Attempt]:
    """Read the attempts of a status; an entry that names no Job of ours was not written by us."""
    name, uid = manifest["metadata"]["name"], manifest["metadata"]["uid"]
    found = []
    for entry in entries if isinstance(entries, list) else []:
        identity = parse_job_name(str(entry.get("job")), name, uid)
        if identity is not None:
            fields: dict[str, Any] = {attribute: entry.get(field) for field, attribute in _FIELDS.items() if field not in ("job", "pod")}
            fields |= {"started": parse_time(entry.get("startedAt")), "finished": parse_time(entry.get("finishedAt"))}
            found.append(Attempt(identity, entry["job"], entry.get("pod") or "", **fields))
    return found


def _seen(sight: Sight, known: Mapping[tuple[str, str], Attempt]) -> Iterable[Attempt]:
    """Yield the attempts that Jobs and pods show. What is recorded as over stays as it was recorded."""
    name, uid = sight.manifest["metadata"]["name"], sight.manifest["metadata"]["uid"]
    jobs_of_pods = set()
    for pod in sight.pods:
        identity = parse_job_name(pod.owner_name, name, uid)
        if identity is not None:
            jobs_of_pods.add(pod.owner_name)
            record = known.get((pod.owner_name, pod.name)) or Attempt(identity, pod.owner_name, pod.name)
            yield record if record.finished is not None else _from_pod(sight, record, pod)
    for job in sight.jobs:
        if job.over and job.name not in jobs_of_pods and not any(key[0] == job.name for key in known):
            reason = AttemptReason.SUCCEEDED if job.complete else AttemptReason.POD_DELETED
            yield Attempt(job.identity, job.name, "", started=job.started, finished=job.ended or sight.now, reason=reason)


def _from_pod(sight: Sight, record: Attempt, pod: PodView) -> Attempt:
    boot_id = sight.boot_ids.get(pod.node or "")
    attempt = replace(
        record,
        node=pod.node,
        started=record.started or _started(sight, pod),
        boot_id=record.boot_id or (boot_id if not pod.over else None),
    )
    if not pod.over:
        return attempt
    end = ending(pod, rebooted=lambda: bool(record.boot_id and boot_id and record.boot_id != boot_id))
    result = end.result
    ended = replace(
        attempt,
        finished=_finished(sight, pod, attempt.started),
        reason=end.reason if end.reason == AttemptReason.SUCCEEDED else record.reason or end.reason,
        exit_code=end.exit_code,
        resumed_from_step=result.resumed_from_step if result is not None else None,
        steps_lost=result.steps_lost if result is not None else None,
    )
    told = ended.told(sight.live)  # a process that was killed leaves no word: what it reported stands for it
    if result is not None and result.step is not None:  # of its arm, though, no result speaks
        return replace(told, stage=(result.stage or "")[:256] or None, step=result.step)
    return told


def _started(sight: Sight, pod: PodView) -> datetime | None:
    """When a pod that was not seen before started, by the control plane's clock."""
    if pod.started is None:
        return None
    ahead = max(timedelta(), (pod.finished or pod.started) - sight.now)
    return max(filter(None, (pod.started - ahead, pod.placed)))


def _finished(sight: Sight, pod: PodView, started: datetime | None) -> datetime:
    """When a pod that is over ended, by the clock of its start; where its node doesn't say, by ours and the API server's."""
    if pod.finished is not None and pod.started is not None and started is not None:
        ended = started + (pod.finished - pod.started)
    else:
        ended = pod.finished or pod.deleting_until or sight.now
    ended = min(ended, sight.now)
    return max(ended, started) if started is not None else ended


def _vanished(sight: Sight, attempt: Attempt) -> Attempt:
    """Say of an attempt whose pod is gone how it ended, as far as that can be told."""
    if attempt.finished is not None:
        return attempt
    job = next((job for job in sight.jobs if job.name == attempt.job), None)
    if job is not None and job.complete:
        reason: str = AttemptReason.SUCCEEDED
    elif attempt.reason is not None:
        reason = attempt.reason
    elif job is not None and not job.deleting:
        suspended = AttemptReason.QUEUE_PREEMPTED if sight.queued else AttemptReason.JOB_EDITED
        reason = suspended if job.suspended else AttemptReason.POD_DELETED
    else:
        reason = AttemptReason.SUSPENDED if sight.suspending else AttemptReason.JOB_DELETED
    finished = max(sight.now, attempt.started) if attempt.started is not None else sight.now
    return replace(attempt, finished=finished, reason=reason).told(sight.live)


def _spent(budgets: object) -> dict[int | None, Spent]:
    """Read what a status says of the budgets."""
    return {
        None if entry.get("index") is None else int(entry["index"]): Spent(int(entry.get("attempts", 0)), int(entry.get("preemptions", 0)))
        for entry in (budgets if isinstance(budgets, list) else [])
    }
