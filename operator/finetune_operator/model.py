"""What the operator's parts say to each other: what was seen, what was decided. Plain values; no I/O, no clock.

`observe` reads the cluster into Observed, `decide` (pure) answers with a Decision, `reconcile` carries it out and ends in at most one
status write. A decision that needs more than was read says so in `needs`; it is then read, and decided anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from finetune_api.v1alpha1.status import Phase
from finetune_api.wire import Notice, ProgressUpdate

Manifest = Mapping[str, Any]
"""An object as the API server sends it: never changed in place."""


class Key(NamedTuple):
    """Which FineTuneJob."""

    namespace: str
    name: str


class Need(StrEnum):
    """What is read only when a decision turns on it: each costs a request."""

    RUNTIMES = "runtimes"  # every ClusterFineTuneRuntime (before the first Job of a FineTuneJob)
    NODES = "nodes"  # every Node (a pod finds no node): its name and what it has, read for all jobs together
    POD_NODES = "podNodes"  # the Nodes that this job's pods stand on, each by a GET (a node may be lost; its bootID)
    EVENTS = "events"  # Events of this job's batch Jobs and pods (quota, LimitRange, mounts), newest last
    SIBLINGS = "siblings"  # the FineTuneJobs of the namespace that write into a folder of the same name: from memory, without a request


@dataclass(frozen=True)
class Endpoint:
    """Where pods report their progress."""

    url: str
    """`https://HOST:PORT/v1/progress`."""
    authorities: str
    """PEM of the certificates that a pod trusts there."""


@dataclass(frozen=True)
class Live:
    """What a job's newest pod has reported, and how fast it goes."""

    update: ProgressUpdate
    """The newest."""
    training: ProgressUpdate | None
    """The newest about training steps, of the same pod."""
    metrics: Mapping[str, float]
    """The newest validation metrics of the stage that trains, of the same pod."""
    job: str
    """Name of the batch Job of the pod."""
    received: datetime
    pace: float | None
    """Percent a second over the last minutes, None where too little was seen."""
    due: bool
    """Whether it is this job's turn for a status write that tells nothing else."""
    notices: tuple[Notice, ...] = ()
    """What the trainer notices of itself, as far as this pod said."""
    pod: str = ""
    """Name of the pod."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a FineTuneJob writes, and what decides whether another one may. The index keeps it of every job that names an output."""

    uri: str
    claim: str | None
    """The claim that the job's own references give for the URI's name, None where its runtime gives it."""
    created: str
    """As the API server writes it."""
    begun: bool
    """Whether it has a Job, or had one, or is about to have one."""
    failed: bool


@dataclass(frozen=True)
class Sibling:
    """Another FineTuneJob of the namespace that writes into a folder of the same name."""

    name: str
    uid: str
    output: Output


@dataclass(frozen=True)
class Observed:
    """One FineTuneJob and what belongs to it, at one moment. Optional parts are None until a decision needed them."""

    job: Manifest
    jobs: tuple[Manifest, ...]
    """batch/v1 Jobs whose controller ownerReference has this uid, Terminating ones too."""
    pods: tuple[Manifest, ...]
    """Pods of those Jobs, also where the Job is gone, and pods with this job's uid in the label that lost their owner."""
    now: datetime
    """By the API server's clock."""
    orphans: tuple[Manifest, ...] = ()
    """batch/v1 Jobs with this job's uid in the label, but without a controller (orphaned by hand): deleted, and waited for."""
    readers: tuple[Manifest, ...] = ()
    """batch/v1 Jobs of ours that read what a user asked for. They are no attempts; their pods are not among `pods`."""
    claim: Manifest | None = None
    """The claim that the operator made for the run folder, where there is one."""
    runtimes: tuple[Manifest, ...] | None = None
    nodes: tuple[Manifest, ...] | None = None
    """With their names and `status.allocatable` alone, as they were some seconds ago."""
    pod_nodes: Mapping[str, Manifest | None] | None = None
    """By node name; None for one that is not there."""
    events: tuple[Manifest, ...] | None = None
    siblings: tuple[Sibling, ...] | None = None
    live: Live | None = None
    endpoint: Endpoint | None = None
    """None where pods report to nobody."""
    refusals: tuple[Refusal, ...] = ()
    """What the API server refused in this very reconcile: decided upon once more, so that the status can say it."""


@dataclass(frozen=True)
class Refusal:
    """A write that the API server refused for good: quota, LimitRange, admission, a foreign object of the same name."""

    kind: str
    name: str
    code: int
    reason: str
    message: str
    found: Manifest | None = None
    """The object that holds the name (409 AlreadyExists), where it can be read."""


@dataclass(frozen=True)
class Create:
    """POST. A 409 is adopted where the object's controller is this job's uid, waited for where it is Terminating, else a Refusal."""

    manifest: Manifest


@dataclass(frozen=True)
class Delete:
    """DELETE with a uid precondition, after a GET confirmed it. A 404 is success."""

    kind: Literal["Job", "Pod", "PersistentVolumeClaim", "FineTuneJob"]
    name: str
    uid: str
    grace_seconds: int | None = None
    """0 forces; None is the object's own."""


class Severity(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class Note:
    """An Event on the FineTuneJob, written only after the status was."""

    severity: Severity
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """What should happen now. Actions first, then at most one status write, then the notes."""

    actions: tuple[Create | Delete, ...] = ()
    status: Manifest | None = None
    """The whole new status; None (or one equal to what stands) is no write."""
    notes: tuple[Note, ...] = ()
    requeue_after: float | None = None
    """Seconds until this job must be looked at without any event: a back-off, a deadline, a node's grace, a TTL."""
    needs: frozenset[Need] = field(default_factory=frozenset)
    """Read these and decide again; nothing else of this decision is carried out then."""

    @property
    def only_tells(self) -> bool:
        """Whether it makes and deletes nothing, and only says how a job goes on: that may be written on what the watches delivered, since
        the resourceVersion guards it and the next look mends it. An end is for good, so it is decided on what the API server says."""
        return not self.actions and (self.status or {}).get("phase") not in (Phase.SUSPENDED, Phase.SUCCEEDED, Phase.FAILED)
