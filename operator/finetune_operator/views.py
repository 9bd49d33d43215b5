"""Typed looks at Jobs and pods as the API server sends them. Nothing is believed that a label says: names and owners can't be edited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from finetune_operator.model import Manifest
from finetune_operator.names import JobName, parse_job_name

_OVER: Final = ("Succeeded", "Failed")


def parse_time(text: object) -> datetime | None:
    """Return an RFC 3339 time, or None where there is none that can be read."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo is not None else found.replace(tzinfo=UTC)


def format_time(moment: datetime | None) -> str | None:
    """Write a time as the API server does: whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment is not None else None


def condition(manifest: Manifest, kind: str) -> Mapping[str, Any] | None:
    """Return the condition of this type, whatever its status."""
    found = (manifest.get("status") or {}).get("conditions") or []
    return next((each for each in found if each.get("type") == kind), None)


def holds(manifest: Manifest, kind: str) -> bool:
    """Whether the condition of this type is True."""
    found = condition(manifest, kind)
    return found is not None and found.get("status") == "True"


@dataclass(frozen=True)
class View:
    """What every object says of itself."""

    manifest: Manifest

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.manifest["metadata"]["uid"])

    @property
    def created(self) -> datetime | None:
        return parse_time(self.manifest["metadata"].get("creationTimestamp"))


@dataclass(frozen=True)
class JobView(View):
    """A batch/v1 Job of ours."""

    identity: JobName

    @property
    def deleting(self) -> bool:
        return self.manifest["metadata"].get("deletionTimestamp") is not None

    @property
    def suspended(self) -> bool:
        return bool(self.manifest["spec"].get("suspend"))

    @property
    def complete(self) -> bool:
        return holds(self.manifest, "Complete")

    @property
    def failed(self) -> bool:
        return holds(self.manifest, "Failed")

    @property
    def over(self) -> bool:
        return self.complete or self.failed

    @property
    def ended(self) -> datetime | None:
        """When its Complete or Failed condition came to be."""
        found = condition(self.manifest, "Complete") if self.complete else condition(self.manifest, "Failed")
        return parse_time(found.get("lastTransitionTime")) if found is not None else None

    @property
    def started(self) -> datetime | None:
        """When the Job controller took it up, or Kueue let it."""
        return parse_time((self.manifest.get("status") or {}).get("startTime")) or self.created


@dataclass(frozen=True)
class Terminated:
    """A container that has ended."""

    container: str
    exit_code: int
    reason: str
    message: str
    finished: datetime | None


@dataclass(frozen=True)
class PodView(View):
    """A pod of such a Job."""

    @property
    def owner(self) -> str | None:
        """uid of the Job that controls it."""
        return str(self._controller["uid"]) if self._controller else None

    @property
    def owner_name(self) -> str:
        """Name of the Job that controls it, also where that is gone already; empty where nothing controls it."""
        return str(self._controller["name"]) if self._controller else ""

    @property
    def _controller(self) -> Mapping[str, Any]:
        owners = self.manifest["metadata"].get("ownerReferences") or []
        return next((owner for owner in owners if owner.get("controller")), {})

    @property
    def node(self) -> str | None:
        return (self.manifest.get("spec") or {}).get("nodeName")

    @property
    def phase(self) -> str:
        return str((self.manifest.get("status") or {}).get("phase") or "Pending")

    @property
    def reason(self) -> str:
        """The kubelet's word for why it failed: Evicted, UnexpectedAdmissionError."""
        return str((self.manifest.get("status") or {}).get("reason") or "")

    @property
    def message(self) -> str:
        """The kubelet's sentence for it."""
        return str((self.manifest.get("status") or {}).get("message") or "")

    @property
    def over(self) -> bool:
        return self.phase in _OVER

    @property
    def deleting_until(self) -> datetime | None:
        """When its grace ends; None where nobody deleted it."""
        return parse_time(self.manifest["metadata"].get("deletionTimestamp"))

    @property
    def started(self) -> datetime | None:
        """When the kubelet took it; from then on it holds its GPUs."""
        return parse_time((self.manifest.get("status") or {}).get("startTime"))

    @property
    def placed(self) -> datetime | None:
        """When it was given to its node, by the control plane's clock: the node's own can't truly have started it before."""
        scheduled = condition(self.manifest, "PodScheduled")
        given = parse_time(scheduled.get("lastTransitionTime")) if scheduled is not None and scheduled.get("status") == "True" else None
        return max(filter(None, (given, self.created)), default=None)

    @property
    def finished(self) -> datetime | None:
        """When its last container ended."""
        moments = [ended.finished for ended in self.terminated if ended.finished is not None]
        return max(moments, default=None)

    @property
    def disruption(self) -> str | None:
        """Reason of the condition DisruptionTarget, None where nothing disrupted it."""
        found = condition(self.manifest, "DisruptionTarget")
        return str(found.get("reason") or "") if found is not None and found.get("status") == "True" else None

    @property
    def not_ready(self) -> bool:
        """Whether the node's controller has marked it, because its node is silent."""
        found = condition(self.manifest, "Ready")
        return found is not None and found.get("status") != "True" and found.get("reason") not in ("PodCompleted", "ContainersNotReady")

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """Statuses of its containers, those that initialise first."""
        status = self.manifest.get("status") or {}
        return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]

    @property
    def terminated(self) -> list[Terminated]:
        return list(self._terminated())

    @property
    def running(self) -> str | None:
        """The container that runs."""
        names = [str(each["name"]) for each in self.containers if "running" in (each.get("state") or {})]
        return names[-1] if names else None

    @property
    def ran(self) -> bool:
        """Whether a container ever ran in it."""
        return any(
            "running" in (each.get("state") or {})
            or (each.get("state") or {}).get("terminated", {}).get("startedAt")
            or each.get("lastState")
            for each in self.containers
        )

    @property
    def end(self) -> Terminated | None:
        """The container that decided how it ended: the first that failed, else the last."""
        ended = self.terminated
        failed = [each for each in ended if each.exit_code != 0]
        return next(iter(failed), ended[-1] if ended else None)

    def _terminated(self) -> Iterator[Terminated]:
        for each in self.containers:
            state = (each.get("state") or {}).get("terminated")
            if state:
                yield Terminated(
                    container=str(each["name"]),
                    exit_code=int(state.get("exitCode", 0)),
                    reason=str(state.get("reason") or ""),
                    message=str(state.get("message") or ""),
                    finished=parse_time(state.get("finishedAt")),
                )


def job_views(job: Manifest, jobs: tuple[Manifest, ...]) -> tuple[JobView, ...]:
    """Return the Jobs whose names are ours, in the order of their segments and numbers, the report last."""
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    named = ((manifest, parse_job_name(manifest["metadata"]["name"], name, uid)) for manifest in jobs)
    views = [JobView(manifest, identity) for manifest, identity in named if identity is not None]
    return tuple(sorted(views, key=lambda view: order(view.identity)))


def order(identity: JobName) -> tuple[bool, int, int]:
    """Sort Jobs by segment and number, the report last."""
    return (identity.segment is None, identity.segment or 0, identity.number)
