"""A job that has ended and is asked for what it left: a reading Job for each request, made once; or the reason why none is made.

The request is an annotation, which whoever may patch the job can write. It chooses among what this job published and its logs, and
nothing else: what is read, where and with what hash comes from the spec and from the status, which no user writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from finetune_api.constants import MAX_MESSAGE, READ_ANNOTATION, READ_SECONDS
from finetune_api.reading import (
    KINDS,
    MAX_READ_BYTES,
    MIB,
    SLICES_A_JOB,
    ReadRequest,
    What,
    artifacts_of,
    asked_for,
    part_of,
    request_id,
    slices_of,
)
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.status import Artifact
from finetune_operator.model import Create, Delete, Manifest, Note, Observed, Severity
from finetune_operator.names import read_job_name
from finetune_operator.parsed import read
from finetune_operator.policies.runtime import recorded
from finetune_operator.requests import is_served, request_text
from finetune_operator.resources.job import JobParts
from finetune_operator.resources.reading import build_read_job
from finetune_operator.snapshot import RuntimeSnapshot
from finetune_operator.views import holds, parse_time

MOST_AT_ONCE: Final = 4
"""Reading Jobs of one FineTuneJob that are at work: a request beyond them waits."""
LOOK_AGAIN_SECONDS: Final = 10.0
EVENT: Final = "Read"
REFUSED_EVENT: Final = "ReadRefused"


@dataclass(frozen=True)
class Answer:
    """What a request comes to: status.lastRead with its Event, and the Job to make; or that it waits, where there is no status."""

    status: dict[str, Any] | None = None
    note: Note | None = None
    actions: tuple[Create | Delete, ...] = ()
    requeue_after: float | None = None


def answer_request(seen: Observed) -> Answer | None:
    """Answer the request that stands on a job that has ended; None where none does, or it was answered."""
    text = request_text(seen.job)
    if text is None or is_served(seen.job):
        return None
    request = ReadRequest.read(text)
    if request is None:
        form = '{"id": "8 hexadecimal digits", "what": "report, adapter, merged or logs", "part": 1}'
        return _refused(request_id(text), f"the annotation {READ_ANNOTATION} is no request, which looks like {form}; it is ignored")
    if seen.refusals:
        refusal = seen.refusals[0]
        return _refused(request.id, f"the API server refused the Job {refusal.name} ({refusal.reason}): {refusal.message}")
    metadata = seen.job["metadata"]
    name = read_job_name(metadata["name"], metadata["uid"], request.id)
    if any(reader["metadata"]["name"] == name for reader in seen.readers):  # made, and then the operator was ended
        return _served(request, name)
    at_work = [reader for reader in seen.readers if _at_work(reader)]
    left = tuple(Delete("Job", reader["metadata"]["name"], reader["metadata"]["uid"]) for reader in at_work if _is_left(seen, reader))
    if len(at_work) - len(left) >= MOST_AT_ONCE:
        return Answer(actions=left, requeue_after=LOOK_AGAIN_SECONDS)
    made = _job(seen, request)
    return _refused(request.id, made) if isinstance(made, str) else _served(request, name, *left, made)


def _job(seen: Observed, request: ReadRequest) -> Create | str:
    """The Job for a request, or why there is none."""
    artifacts, job, snapshot = artifacts_of(seen.job.get("status") or {}), read(seen.job), recorded(seen)
    if job is None or snapshot is None:
        return "it is not known in what the job ran: read its files where they lie (status.artifacts)"
    problem = _unreadable(request, artifacts) or _claim_problem(seen, request, job, snapshot)
    if problem:
        return problem
    return Create(build_read_job(JobParts(seen.job, job, snapshot), request, artifacts))


def _unreadable(request: ReadRequest, artifacts: list[Artifact]) -> str:
    """Why this can't be read of what was published; empty where it can."""
    wanted, what = asked_for(request.what, artifacts), request.what.value
    if KINDS[request.what] and not wanted:
        there = ", ".join(artifact.kind for artifact in artifacts) or "nothing"
        return f"no {what} was published: there is {there}"
    size = sum(artifact.bytes for artifact in wanted)
    if size > MAX_READ_BYTES:
        where = wanted[0].uri
        return f"the {what} has {size // MIB:,} MiB, and at most {MAX_READ_BYTES // MIB:,} are read like this: mount the claim, it lies at {where}"
    if not part_of(request, artifacts):
        last = -(-slices_of(size) // SLICES_A_JOB)
        return f"there is no part {request.part} of the {what}: " + (f"it has {last}" if wanted else "logs have at most 4")
    return ""


def _claim_problem(seen: Observed, request: ReadRequest, job: FineTuneJob, snapshot: RuntimeSnapshot) -> str:
    """Whether the claim that was made for the job is gone, where it is needed; of others only the kubelet can say that."""
    if snapshot.spec.storage.claim_template is None or (request.what is not What.LOGS and job.spec.output.uri is not None):
        return ""
    if seen.claim is None:
        return "the claim with the run folder is gone, and what lay there with it"
    if seen.claim["metadata"].get("deletionTimestamp"):
        return f"the claim {seen.claim['metadata']['name']} with the run folder is being deleted"
    return ""


def _served(request: ReadRequest, name: str, *actions: Create | Delete) -> Answer:
    part = f", part {request.part}" if request.part > 1 else ""
    note = Note(Severity.NORMAL, EVENT, f"Job {name} reads what was asked for: {request.what.value}{part}")
    return Answer({"id": request.id, "job": name}, note, actions)


def _refused(identity: str, message: str) -> Answer:
    return Answer({"id": identity, "message": message[:MAX_MESSAGE]}, Note(Severity.WARNING, REFUSED_EVENT, message))


def _is_left(seen: Observed, reader: Manifest) -> bool:
    """Whether a queue holds it, and whoever asked has gone long ago: the time of a Job that does not run never ends."""
    created = parse_time(reader["metadata"].get("creationTimestamp"))
    return created is not None and (seen.now - created).total_seconds() > 2 * READ_SECONDS


def _at_work(reader: Manifest) -> bool:
    return not (reader["metadata"].get("deletionTimestamp") or holds(reader, "Complete") or holds(reader, "Failed"))
