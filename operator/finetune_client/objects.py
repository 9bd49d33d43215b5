"""What the API server sends, typed: a job, an event, a line of a log. Pure.

A job holds its manifest as it came and reads it when asked. So a newer operator's fields break nothing, and a list of a thousand jobs costs
no validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from finetune_api.v1alpha1.fine_tune_job import RULES_APART, FineTuneJobSpec
from finetune_api.v1alpha1.status import FineTuneJobStatus

SERVERS_OWN: Final = ("managedFields", "uid", "resourceVersion", "creationTimestamp", "generation", "selfLink", "deletionTimestamp")


@dataclass(frozen=True)
class Job:
    """A FineTuneJob as it stood when it was read."""

    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.manifest["metadata"].get("namespace") or "")

    @property
    def uid(self) -> str:
        return str(self.manifest["metadata"].get("uid") or "")

    @property
    def version(self) -> str:
        """Its resourceVersion: another one means that something changed."""
        return str(self.manifest["metadata"].get("resourceVersion") or "")

    @property
    def created(self) -> datetime | None:
        return parse_time(self.manifest["metadata"].get("creationTimestamp"))

    @property
    def deleting(self) -> bool:
        return self.manifest["metadata"].get("deletionTimestamp") is not None

    @cached_property
    def spec(self) -> FineTuneJobSpec:
        """Raises pydantic's ValidationError for a spec that this version of the client can't read."""
        return FineTuneJobSpec.model_validate(self.manifest["spec"], extra="ignore", context=RULES_APART)

    @cached_property
    def status(self) -> FineTuneJobStatus:
        """What has become of it; empty as long as no operator has looked at it. Fields that this version does not know are left out."""
        return FineTuneJobStatus.model_validate(self.raw_status, extra="ignore")

    @property
    def raw_status(self) -> Mapping[str, Any]:
        found = self.manifest.get("status")
        return found if isinstance(found, dict) else {}

    @property
    def phase(self) -> str:
        """Pending, Preparing, Queued, Running, Suspending, Suspended, Succeeded or Failed; empty as long as no operator has looked at it."""
        return str(self.raw_status.get("phase") or "")

    def condition(self, kind: str) -> Mapping[str, Any]:
        """The condition of this type, empty where there is none: status, reason, message."""
        found = self.raw_status.get("conditions")
        return next((each for each in found if each.get("type") == kind), {}) if isinstance(found, list) else {}

    def holds(self, kind: str) -> bool:
        """Whether the condition of this type is True. It may speak of an older generation: `wait` looks at that."""
        return self.condition(kind).get("status") == "True"

    @property
    def current(self) -> bool:
        """Whether the status speaks of the spec as it is."""
        return bool(self.raw_status.get("observedGeneration") == self.manifest["metadata"].get("generation"))

    @property
    def succeeded(self) -> bool:
        return self.holds("Complete")

    @property
    def failed(self) -> bool:
        return self.holds("Failed")

    @property
    def finished(self) -> bool:
        return self.holds("Finished")

    @property
    def says(self) -> str:
        """The sentence of the condition that matters most now: why it can't start, failed, is suspended, or what it does."""
        for kind, status in (("Accepted", "False"), ("Failed", "True"), ("Complete", "True"), ("Suspended", "True")):
            found = self.condition(kind)
            if found.get("status") == status:
                return str(found.get("message") or "")
        return str(self.condition("Running").get("message") or "")


@dataclass(frozen=True)
class Event:
    """Something that happened to a job."""

    at: datetime | None
    severity: str
    """Normal or Warning."""
    reason: str
    message: str
    count: int
    """How often it was said."""
    uid: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Event:
        series = manifest.get("series") or {}
        times = (series.get("lastObservedTime"), manifest.get("lastTimestamp"), manifest.get("eventTime"), manifest.get("firstTimestamp"))
        return cls(
            at=next((moment for text in times if (moment := parse_time(text)) is not None), None),
            severity=str(manifest.get("type") or "Normal"),
            reason=str(manifest.get("reason") or ""),
            message=str(manifest.get("message") or manifest.get("note") or ""),
            count=int(series.get("count") or manifest.get("count") or 1),
            uid=str(manifest["metadata"].get("uid") or ""),
        )


@dataclass(frozen=True)
class LogLine:
    """One line that a container wrote. The text is as it was written: make it safe before it goes to a terminal."""

    pod: str
    container: str
    attempt: int | None
    at: datetime | None
    text: str


def parse_time(text: object) -> datetime | None:
    """An RFC 3339 time; nanoseconds are cut. None where there is none."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def without_what_the_server_writes(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest as its author means it: what `kubectl get -o yaml` printed can be applied again."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name not in SERVERS_OWN}
    return {**{name: value for name, value in manifest.items() if name != "status"}, "metadata": metadata}
