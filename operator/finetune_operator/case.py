"""One accepted job, with everything that a policy decides upon, and what a policy answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Final

from finetune_api.constants import ConditionReason
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob, FineTuneJobSpec
from finetune_api.v1alpha1.runtime import ClusterFineTuneRuntimeSpec, Prepare
from finetune_api.v1alpha1.status import Failure, Phase
from finetune_api.wire import RunResult, SegmentKind, TrainerConfig
from finetune_operator import parsed
from finetune_operator.attempts import History, Sight, history
from finetune_operator.model import Create, Delete, Manifest, Need, Observed
from finetune_operator.resources.job import JobParts, gpus_of
from finetune_operator.snapshot import RuntimeSnapshot
from finetune_operator.views import JobView, PodView, job_views

START_SECONDS: Final = 5.0
"""A Job that has just been made is given this long to have a running pod: then the status says both at once, in one write."""


LOOK_AGAIN_SECONDS: Final = 10.0
"""Between two looks at what is told to go."""


@dataclass(frozen=True)
class Step:
    """What a policy answers: what to do, and what the status says then. The first policy that answers decides."""

    phase: Phase
    reason: ConditionReason
    message: str
    actions: tuple[Create | Delete, ...] = ()
    intents: Mapping[str, str] = field(default_factory=dict)
    """Name of a Job → why its attempt is being ended."""
    requeue_after: float | None = None
    needs: frozenset[Need] = frozenset()
    accepted: bool = True
    running: bool = False
    """Whether a container of the job runs."""
    suspended: bool = False
    succeeded: bool = False
    failure: Failure | None = None
    result: RunResult | None = None
    """The whole result, at the end."""
    quiet: bool = False
    """Nothing here needs telling at once: it may go into the next status write."""


def needing(*needs: Need) -> Step:
    """Answer that more must be read first."""
    return Step(Phase.PENDING, ConditionReason.STARTING, "", needs=frozenset(needs))


def waiting(reason: ConditionReason, message: str, *, phase: Phase = Phase.PENDING, requeue_after: float | None = None) -> Step:
    """Answer that the job waits for something that nobody here can mend."""
    return Step(phase, reason, message, requeue_after=requeue_after)


def refusing(reason: ConditionReason, message: str, *, requeue_after: float | None = None) -> Step:
    """Answer that the job can't start as it stands."""
    return Step(Phase.PENDING, reason, message, accepted=False, requeue_after=requeue_after)


@dataclass(frozen=True)
class Case:
    seen: Observed
    parts: JobParts
    configs: tuple[TrainerConfig, ...]
    """What each segment's trainer is told, in order."""
    jobs: tuple[JobView, ...]
    pods: tuple[PodView, ...]
    history: History

    @classmethod
    def of(cls, seen: Observed, job: FineTuneJob, snapshot: RuntimeSnapshot) -> Case:
        """Look at everything once."""
        parts = JobParts(seen.job, job, snapshot, seen.endpoint)
        planned = parsed.configs(parts)
        inside = snapshot.spec.prepare is Prepare.IN_TRAIN_POD
        configs = tuple(config for config in planned if not (inside and config.segment.kind is SegmentKind.PREPARE))
        gpus = {config.segment.index: gpus_of(config, snapshot.spec) for config in configs}
        jobs, pods = job_views(seen.job, seen.jobs), tuple(PodView(pod) for pod in seen.pods)
        nodes = {name: node for name, node in (seen.pod_nodes or {}).items() if node is not None}
        status = seen.job.get("status") or {}
        sight = Sight(
            manifest=seen.job,
            jobs=jobs,
            pods=pods,
            now=seen.now,
            boot_ids={name: str(node["status"]["nodeInfo"]["bootID"]) for name, node in nodes.items() if _has_boot_id(node)},
            suspending=job.spec.suspend or status.get("phase") == Phase.SUSPENDING,
            queued=snapshot.spec.queue_name is not None,
            gpus=lambda segment: gpus.get(segment, 0) if segment is not None else 0,
            live=seen.live,
        )
        return cls(seen, parts, configs, jobs, pods, history(sight))

    @property
    def now(self) -> datetime:
        return self.seen.now

    @property
    def spec(self) -> FineTuneJobSpec:
        return self.parts.job.spec

    @property
    def runtime(self) -> ClusterFineTuneRuntimeSpec:
        return self.parts.snapshot.spec

    @cached_property
    def current(self) -> TrainerConfig | None:
        """The segment to work on; None once all are done."""
        return next((config for config in self.configs if not self._is_done(config.segment.index)), None)

    @cached_property
    def live(self) -> tuple[JobView, ...]:
        """Segments' Jobs that are neither over nor being deleted, the one to keep first: the lowest number of the furthest segment."""
        alive = [job for job in self.jobs if not job.over and not job.deleting and job.identity.segment is not None]
        furthest = max((job.identity.segment or 0 for job in alive), default=0)
        return tuple(sorted(alive, key=lambda job: job.identity.segment != furthest))

    @property
    def reports(self) -> tuple[JobView, ...]:
        """Jobs that read a long result, in their order."""
        return tuple(job for job in self.jobs if job.identity.segment is None and not job.deleting)

    @property
    def started(self) -> bool:
        """Whether anything of it ever ran, or was made."""
        return bool(self.jobs or self.history.attempts)

    @cached_property
    def leaving(self) -> tuple[PodView, ...]:
        """Pods that are not over, of Jobs that are."""
        alive = {job.uid for job in (*self.live, *self.reports)}
        return tuple(pod for pod in self.pods if not pod.over and pod.owner not in alive)

    @property
    def is_leaving(self) -> bool:
        """Whether something must be gone before the next Job is made."""
        return bool(self.leaving) or any(job.deleting for job in self.jobs)

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """Return a Job's pods, the oldest first."""
        owned = [pod for pod in self.pods if pod.owner == job.uid]
        return tuple(sorted(owned, key=lambda pod: (pod.created.timestamp() if pod.created else 0.0, pod.name)))

    def pod(self, job: str, name: str) -> PodView | None:
        """Return the pod of an attempt, None where it is gone."""
        return next((pod for pod in self.pods if pod.name == name and pod.owner_name == job), None)

    def _is_done(self, index: int) -> bool:
        jobs = [job for job in self.jobs if job.identity.segment == index]
        later = any(job.identity.segment is not None and job.identity.segment > index for job in self.jobs)
        return later or (self.history.succeeded(index) and all(job.over for job in jobs if not job.deleting))


def segment_word(config: TrainerConfig) -> str:
    """Name a segment for people: prepare, or its stages."""
    return config.segment.kind.value if config.segment.kind is SegmentKind.PREPARE else ", ".join(config.segment.stages)[:256]


def delete_job(job: JobView) -> Delete:
    """Delete a Job, pods and all; nothing where that is under way."""
    return Delete("Job", job.name, job.uid)


def stopping(
    case: Case, intent: str, message: str, *, phase: Phase = Phase.RUNNING, reason: ConditionReason = ConditionReason.STOPPING
) -> Step | None:
    """End whatever is at work, and wait until it is gone; None where nothing is left. `intent` is what ends its attempts."""
    if not case.live and not case.is_leaving:
        return None
    return Step(
        phase,
        reason,
        message,
        actions=tuple(delete_job(job) for job in case.live),
        # Those that are on their way out too: what was said of them may have been overwritten.
        intents={job.name: intent for job in case.jobs if not job.over and job.identity.segment is not None},
        requeue_after=LOOK_AGAIN_SECONDS,
    )


def _has_boot_id(node: Manifest) -> bool:
    return bool(((node.get("status") or {}).get("nodeInfo") or {}).get("bootID"))
