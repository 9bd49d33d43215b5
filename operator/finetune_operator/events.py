"""Events on the FineTuneJob, for `kubectl describe`: written only after the status that they tell of, and never worth a failure.

The name of an Event is made from what it says, so that the same thing said again, also by the operator's next life, counts one up on
the Event that is there instead of adding a line.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from finetune_operator.errors import AlreadyExists, KubeError
from finetune_operator.kinds import OWN_EVENT, uid_of
from finetune_operator.kube import FIELD_MANAGER, Kube
from finetune_operator.model import Manifest, Note

MAX_NOTE = 1024  # the API server's bound, in bytes
log = logging.getLogger(__name__)


class Recorder:
    def __init__(self, kube: Kube, *, now: Callable[[], datetime], instance: str) -> None:
        """instance: which operator says it; the pod's name."""
        self._kube = kube
        self._now = now
        self._instance = instance

    async def write(self, job: Manifest, notes: Iterable[Note]) -> None:
        """Write each note, or count it up. What fails is logged, and that is all."""
        for note in notes:
            try:
                await self._write(job, note)
            except KubeError as error:
                log.warning("an Event was not written: %s", error)

    async def _write(self, job: Manifest, note: Note) -> None:
        event = event_of(job, note, now=self._now(), instance=self._instance)
        namespace, name = event["metadata"]["namespace"], event["metadata"]["name"]
        try:
            await self._kube.create(event)
        except AlreadyExists:
            found = await self._kube.get(OWN_EVENT, namespace, name)
            count = (found.get("series") or {}).get("count", 1) + 1
            await self._kube.patch_event(namespace, name, {"series": {"count": count, "lastObservedTime": event["eventTime"]}})


def event_of(job: Manifest, note: Note, *, now: datetime, instance: str) -> Manifest:
    """The Event of a note; the same note on the same job has the same name."""
    metadata = job["metadata"]
    said = "\0".join((uid_of(job), note.severity, note.reason, note.message))
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    return {
        "apiVersion": OWN_EVENT.api_version,
        "kind": OWN_EVENT.name,
        "metadata": {"namespace": metadata["namespace"], "name": f"{metadata['name']}.{digest}"},
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"finetune.dev/{FIELD_MANAGER}",
        "reportingInstance": instance[:128],
        "action": "Reconcile",
        "type": str(note.severity),
        "reason": note.reason[:128],
        "note": cut(note.message),
        "regarding": {
            "apiVersion": job["apiVersion"],
            "kind": job["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": uid_of(job),
        },
    }


def cut(text: str) -> str:
    """The text in at most 1,024 bytes of UTF-8, an ellipsis where something is missing."""
    if len(text.encode()) <= MAX_NOTE:
        return text
    return text.encode()[: MAX_NOTE - 3].decode(errors="ignore") + "…"
