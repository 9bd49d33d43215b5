"""A Job at work: what its newest pod does, or what it waits for. Reads what explains a wait only when it has lasted."""

from __future__ import annotations

from datetime import datetime

from finetune_api.constants import ConditionReason
from finetune_api.v1alpha1.status import Phase
from finetune_operator.case import START_SECONDS, Case, Step, needing, waiting
from finetune_operator.diagnose import Finding, pod_waits_for, without_pod
from finetune_operator.model import Create, Need
from finetune_operator.policies.deadline import seconds_left
from finetune_operator.policies.silence import silence_of
from finetune_operator.resources.job import PREPARE
from finetune_operator.views import JobView, PodView

LOOK_AGAIN_SECONDS = 30.0
"""Quotas, Secrets and claims are not watched: what waits for one looks again."""


REPLACE_SECONDS = 15.0
"""A Job replaces a pod after a back-off of its own, of ten seconds the first time: only what takes longer needs explaining."""


def starting(reason: ConditionReason, message: str, *made: Create) -> Step:
    """Answer that something was just made: told with what comes of it, unless that takes long."""
    return Step(Phase.PENDING, reason, message, actions=made, requeue_after=START_SECONDS, quiet=True)


def watched(case: Case) -> Step | None:
    """Say how the Job at work is doing."""
    return watch_job(case, case.live[0]) if case.live else None


def watch_job(case: Case, job: JobView) -> Step:
    """Say how a Job that is not over is doing."""
    if job.suspended:
        return waiting(ConditionReason.QUEUED, f"Job {job.name} waits for quota in queue {case.runtime.queue_name}", phase=Phase.QUEUED)
    pods = case.pods_of(job)
    alive = [pod for pod in pods if not pod.over]
    if not alive:
        return _without_pod(case, job, pods)
    pod = alive[-1]
    if pod.running is not None:
        return _running(case, job, pod)
    if pod.containers and len(pod.terminated) == len(pod.containers):
        # Its phase follows a second later: told with what it came to.
        return Step(Phase.RUNNING, ConditionReason.STOPPING, f"pod {pod.name} has ended", requeue_after=START_SECONDS, quiet=True)
    return _waiting(case, pod)


def _running(case: Case, job: JobView, pod: PodView) -> Step:
    left = seconds_left(case)
    if not any(attempt.boot_id for attempt in case.history.attempts if attempt.pod == pod.name) and case.seen.pod_nodes is None:
        return needing(Need.POD_NODES)
    if job.identity.segment is None:
        return Step(Phase.RUNNING, ConditionReason.REPORTING, "the result is read from the run folder", running=True, requeue_after=left)
    prepares = job.identity.segment == 0 or pod.running == PREPARE
    where = f"pod {pod.name} runs on node {pod.node}"
    if pod.deleting_until is not None:
        where = f"pod {pod.name} is being stopped, and another one will go on from its checkpoint"
    phase, reason = (Phase.PREPARING, ConditionReason.PREPARING) if prepares else (Phase.RUNNING, ConditionReason.TRAINING)
    if pod.deleting_until is None and (silence := silence_of(case, pod)) is not None:
        reason, where = ConditionReason.NO_PROGRESS, silence
    return Step(phase, reason, where, running=True, requeue_after=left)


def _without_pod(case: Case, job: JobView, over: tuple[PodView, ...]) -> Step:
    """The Job controller has not made a pod yet, or none since the last was over, or is about to end the Job."""
    ends = [attempt.finished for attempt in case.history.attempts if attempt.job == job.name and attempt.finished is not None]
    left = max([START_SECONDS - _age(case, job.started), *(REPLACE_SECONDS - _age(case, ended) for ended in ends)])
    if left > 0:
        return Step(Phase.PENDING, ConditionReason.STARTING, f"Job {job.name} has no pod yet", requeue_after=max(0.5, left), quiet=True)
    if case.seen.events is None:
        return needing(Need.EVENTS)
    made = max((pod.created for pod in over if pod.created is not None), default=None)
    return _told(without_pod(case.seen.events, job, since=made), f"Job {job.name} has no pod yet")


def _waiting(case: Case, pod: PodView) -> Step:
    age = _age(case, pod.created)
    if age < START_SECONDS:  # what a new pod lacks often comes a moment later: a claim is made, a volume is bound
        return Step(
            Phase.PENDING, ConditionReason.STARTING, f"pod {pod.name} starts", requeue_after=max(0.5, START_SECONDS - age), quiet=True
        )
    found = pod_waits_for(pod, case)
    if isinstance(found, Need):
        return needing(found)
    return _told(found, f"pod {pod.name} starts" + (f" on node {pod.node}" if pod.node else ""))


def _told(found: Finding | None, otherwise: str) -> Step:
    if found is None:
        return waiting(ConditionReason.STARTING, otherwise, requeue_after=LOOK_AGAIN_SECONDS)
    return waiting(found.reason, found.message, requeue_after=LOOK_AGAIN_SECONDS)


def _age(case: Case, since: datetime | None) -> float:
    """Seconds since then; never less than nothing."""
    return max(0.0, (case.now - since).total_seconds()) if since is not None else 0.0
