"""What a job that has ended left on its volume, brought here: the operator makes a reading Job on request, and its log is what arrives.

The caller needs `patch` on the FineTuneJob, `list` on pods and `get` on pods/log, and no right to make anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetune_api import constants as c
from finetune_api.reading import (
    KINDS,
    MAX_READ_BYTES,
    MIB,
    NAMES,
    SLICE_BYTES,
    ReadRequest,
    Slice,
    What,
    artifacts_of,
    asked_for,
    digest_of,
    part_of,
    read_slice,
    request_id,
)
from finetune_api.v1alpha1.status import Artifact
from finetune_client.errors import ClientError, Conflict, NotFound, OperatorMissing, ServerTrouble, Unreachable, Unreadable, WaitTimeout
from finetune_client.logs import pods_path, split
from finetune_client.objects import Job
from finetune_client.staging import DAMAGED_HINT, Staging, staging
from finetune_client.transport import Transport
from finetune_client.watch import list_all

LOOK_SECONDS: Final = 1.0
WITHDRAW_SECONDS: Final = 10.0
GONE_LOOKS: Final = 30
"""So many looks without the pod that was there: its Job's time is over, or somebody deleted it. Before, its Job may make another one."""
READ_AGAIN: Final = 3
"""How often a log is read in which a part is missing: what a container just wrote may not be there yet."""


@dataclass(frozen=True)
class Fetched:
    """What arrived."""

    job: Job
    files: tuple[Path, ...]
    bytes: int


@dataclass(frozen=True)
class Transfer:
    """How far it is."""

    done: int
    """Bytes that have arrived."""
    total: int | None
    """None as long as nobody knows."""
    waits_for: str
    """What it waits for now, in words."""


Seen = Callable[[Transfer], None]


async def fetch(
    transport: Transport,
    path: str,
    job: Job,
    what: What,
    folder: Path,
    *,
    force: bool,
    timeout: float | None,
    seen: Seen,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Fetched:
    """Bring it into a folder. path: of the job. timeout: seconds without anything new. See AsyncClient.fetch for what it raises."""
    wanted = readable(job, what)
    with staging(folder, force=force) as staged:
        part = 1
        while not staged.complete:
            request = ReadRequest(id=secrets.token_hex(4), what=what, part=part)
            if not part_of(request, wanted):
                raise Unreadable(f"the pod announced {staged.slices} slices, and there are {staged.taken}", DAMAGED_HINT)
            await _Part(_Link(transport, path, job, sleep), request, wanted, staged, seen).take(timeout)
            part += 1
        verify(what, wanted, staged.digests)
        return Fetched(job, staged.commit(), staged.size)


def readable(job: Job, what: What) -> list[Artifact]:
    """The artifacts that are meant; none for logs. Raises Unreadable where the operator would refuse: it is said at once then."""
    if not job.finished:
        stands = job.phase or "not looked at by an operator yet"
        raise Unreadable(
            f"{job.name} has not ended yet: it is {stands}",
            f"Wait for it: finetune wait {job.name}; what it writes: finetune logs {job.name}",
        )
    published = artifacts_of(job.raw_status)
    wanted = asked_for(what, published)
    if KINDS[what] and not wanted:
        if job.failed:
            why = str((job.raw_status.get("failure") or {}).get("reason") or "it failed")
            raise Unreadable(f"{job.name} failed ({why}) and published nothing", f"Why: finetune describe {job.name}")
        there = ", ".join(artifact.kind for artifact in published)
        hint = (
            "Its merged model: --kind merged" if any(artifact.kind == "merged" for artifact in published) else "spec.output.format decides"
        )
        raise Unreadable(f"{job.name} published no {what.value}: there is {there or 'nothing'}", hint)
    size = sum(artifact.bytes for artifact in wanted)
    if size > MAX_READ_BYTES:
        raise Unreadable(
            f"the {what.value} of {job.name} has {size // MIB:,} MiB, and at most {MAX_READ_BYTES // MIB:,} are read through logs",
            f"Mount the claim in a pod of yours: it lies at {wanted[0].uri}",
        )
    return wanted


def verify(what: What, wanted: list[Artifact], digests: Mapping[str, str]) -> None:
    """Compare what arrived with the status. Raises Unreadable."""
    for artifact in wanted:
        name = NAMES[artifact.kind]
        found = digests.get(name) if what is What.REPORT else digest_of(digests)
        if found != artifact.sha256:
            raise Unreadable(
                f"what arrived is not the {artifact.kind} that was published: its sha256 is {found}, and the status says {artifact.sha256}",
                DAMAGED_HINT,
            )


def waits_for(pod: Mapping[str, Any]) -> str:
    """What a pod waits for, in the words of the scheduler or the kubelet."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"pod {name} waits for a node: {condition.get('message') or condition.get('reason') or ''}"
    for each in _statuses(pod):
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return f"pod {name}: {waiting['reason']}: {waiting.get('message') or ''}"
    return f"pod {name} is {status.get('phase') or 'Pending'}"


@dataclass(frozen=True)
class _Link:
    """The job, and how to reach it."""

    transport: Transport
    path: str
    job: Job
    sleep: Callable[[float], Awaitable[None]]


class _Part:
    """One request, and the slices that its Job prints."""

    def __init__(self, link: _Link, request: ReadRequest, wanted: list[Artifact], staged: Staging, seen: Seen) -> None:
        self._transport = link.transport
        self._path = link.path
        self._job = link.job
        self._sleep = link.sleep
        self._request = request
        self._staged = staged
        self._seen = seen
        self._total = sum(artifact.bytes for artifact in wanted) if wanted else None
        self._containers = [f"slice-{number}" for number in part_of(request, wanted)]
        self._waits = "the operator has not looked at the request yet"
        self._had_pod, self._looks_without = False, 0

    async def take(self, timeout: float | None) -> None:
        """Ask, and write each slice as soon as its container has ended; withdraw the request, however that ends."""
        try:
            await self._pod()  # who may not see it learns that before a pod is made
            async with asyncio.timeout(timeout) as patience, self._asked():
                for container in self._containers:
                    found = await self._slice(container)
                    self._staged.take(found)
                    self._tell(f"{container} has arrived")
                    if timeout is not None:
                        patience.reschedule(asyncio.get_running_loop().time() + timeout)
        except TimeoutError as error:
            hint = "Is the operator there (finetune describe), and may a pod start in this namespace? Mend that, and ask again."
            raise WaitTimeout(f"{self._job.name} was not read within {timeout:g} s: {self._waits}", hint, self._job) from error

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[None]:
        asking = asyncio.create_task(self._annotate(self._request.text))
        try:
            await asyncio.shield(asking)  # who gives up while it is under way waits for it, since it may have been taken
            yield
        finally:
            with contextlib.suppress(ClientError, TimeoutError):
                async with asyncio.timeout(WITHDRAW_SECONDS):
                    await asking
                    await self._withdraw()

    async def _slice(self, container: str) -> Slice:
        """Wait until a container has ended, and read its log. What is only a broken connection is waited for."""
        damaged = 0
        while True:
            try:
                found = await self._look(container)
                if found is not None:
                    return found
            except ValueError as error:
                damaged += 1
                if damaged >= READ_AGAIN:
                    hint = "Does the kubelet keep less than 10 MiB of a log (containerLogMaxSize)? Then mount the claim."
                    raise Unreadable(f"the log of {container} is not whole: {error}", hint) from error
            except (Unreachable, ServerTrouble) as error:
                self._tell(error.message)
            await self._sleep(LOOK_SECONDS)

    async def _look(self, container: str) -> Slice | None:
        """The slice, where its container has ended; else say what it waits for."""
        pod = await self._pod()
        if pod is None:
            await self._look_at_job()
            return None
        self._had_pod, self._looks_without = True, 0
        if _has_succeeded(pod, container):
            return await self._log(pod["metadata"]["name"], container)
        if problem := _failure(pod):
            raise problem
        self._tell(waits_for(pod))
        return None

    async def _pod(self) -> Mapping[str, Any] | None:
        """The newest pod of the request's Job."""
        where = {"labelSelector": f"{c.JOB_UID_LABEL}={self._job.uid},{c.READ_LABEL}={self._request.id}"}
        path = pods_path(self._job.namespace)
        found, _ = await list_all(self._transport, path, what=f"pods in the namespace {self._job.namespace}", query=where)
        return max(found, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]), default=None)

    async def _log(self, pod: str, container: str) -> Slice:
        """Raises ValueError where a part of it is missing."""
        query = {"container": container, "limitBytes": str(2 * SLICE_BYTES)}
        try:
            async with self._transport.stream(f"{pods_path(self._job.namespace)}/{pod}/log", what=f"pod {pod}", query=query) as pieces:
                return read_slice([line async for line in split(pieces)])
        except (NotFound, OperatorMissing) as error:  # a 404 about a log names no object
            raise ValueError(f"pod {pod} is gone, and its log with it") from error

    async def _look_at_job(self) -> None:
        """There is no pod: what does the operator say? Another request may have taken the place of this one before it was seen."""
        job = await self._read()
        last = job.raw_status.get("lastRead") or {}
        if last.get("id") == self._request.id:
            if last.get("message"):
                raise Unreadable(f"{job.name} can't be read: {last['message']}", f"More: finetune describe {job.name}")
            self._looks_without += 1
            if self._had_pod and self._looks_without >= GONE_LOOKS:
                hint = f"It has {c.READ_SECONDS} s in all: {self._waits}"
                raise Unreadable(f"the pod that read {job.name} is gone before it had ended", hint)
            if not self._had_pod:
                self._tell(f"Job {last.get('job')} has no pod yet (a quota, or a queue)")
            return
        standing = _annotation(job)
        if standing != self._request.text and (standing is None or last.get("id") == request_id(standing)):
            await self._annotate(self._request.text)

    async def _read(self) -> Job:
        _, found = await self._transport.call("GET", self._path, what=f"{c.KIND} {self._job.name}")
        job = Job(found)
        if job.uid != self._job.uid:
            raise NotFound(f"{job.name} was deleted, and made anew")
        return job

    async def _withdraw(self) -> None:
        """Take the annotation away, as long as it is ours: the operator may write the status in between, which is a conflict."""
        while _annotation(job := await self._read()) == self._request.text:
            with contextlib.suppress(Conflict):
                await self._annotate(None, version=job.version)

    async def _annotate(self, text: str | None, *, version: str | None = None) -> None:
        metadata: dict[str, Any] = {"annotations": {c.READ_ANNOTATION: text}, "uid": self._job.uid}
        metadata |= {"resourceVersion": version} if version else {}
        await self._transport.call(
            "PATCH",
            self._path,
            what=f"{c.KIND} {self._job.name}",
            query={"fieldManager": "finetune"},
            body={"metadata": metadata},
            content_type="application/merge-patch+json",
        )

    def _tell(self, waits: str) -> None:
        self._waits = waits
        self._seen(Transfer(self._staged.received, self._staged.size or self._total, waits))


def _annotation(job: Job) -> str | None:
    found = (job.manifest["metadata"].get("annotations") or {}).get(c.READ_ANNOTATION)
    return str(found) if found is not None else None


def _statuses(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _has_succeeded(pod: Mapping[str, Any], container: str) -> bool:
    ended = [(each.get("state") or {}).get("terminated") for each in _statuses(pod) if each.get("name") == container]
    return any(each is not None and each.get("exitCode") == 0 for each in ended)


def _failure(pod: Mapping[str, Any]) -> Unreadable | None:
    """Why a pod will print nothing more; None where it may yet, or its Job makes another one in its place."""
    status = pod.get("status") or {}
    disrupted = any(each.get("type") == "DisruptionTarget" and each.get("status") == "True" for each in status.get("conditions") or [])
    if status.get("phase") != "Failed" or disrupted:
        return None
    name = pod["metadata"]["name"]
    for each in _statuses(pod):
        ended = (each.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            said, hint = _said(str(ended.get("message") or ""))
            return Unreadable(f"pod {name} could not read it: {said or ended.get('reason')} (exit code {ended['exitCode']})", hint)
    return Unreadable(f"pod {name} failed: {status.get('reason') or ''} {status.get('message') or ''}".rstrip())


def _said(message: str) -> tuple[str, str]:
    """A trainer's last words and its hint; what another program wrote, as it is."""
    try:
        found = json.loads(message)
        return str(found["message"]), str(found.get("hint") or "")
    except (ValueError, KeyError, TypeError):
        return message[-1000:].strip(), "Is the runtime's trainer image of the operator's version? One before 0.1.0's `read` can't do it."
