"""Lives of the operator that end at one of its writes, for many FineTuneJobs side by side: each has an operator of its own, which serves it alone.

An operator's only memory is in its `Stack`; whatever it does to the cluster goes through one `Kube`. So a life that is ended at a call to
that door, with every task cancelled, leaves exactly what a killed process leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from finetune_api import constants as c
from finetune_operator.app import work
from finetune_operator.errors import Transient
from finetune_operator.kinds import CLAIM, FINE_TUNE_JOB, JOB, POD, Kind, job_uid_label, key_of, uid_of
from finetune_operator.kube import Kube, list_all
from finetune_operator.model import Manifest
from finetune_operator.views import condition
from tests.apiserver.trouble_operator import Clock, Informer, Stack

Body = dict[str, Any]
T = TypeVar("T")
NEVER: Final = "never"


class Moment(StrEnum):
    """When, relative to a write, the fault comes."""

    BEFORE = "killed before it is sent"
    IN = "killed when it has reached the API server, and no answer has come back"
    AFTER = "killed as soon as the answer is there"
    BROKEN = "the connection breaks before it is sent, and the operator lives on"
    LOST = "the answer is lost, and the operator lives on"


@dataclass(frozen=True)
class Fault:
    """The first write of this name meets this."""

    write: str = NEVER
    moment: Moment = Moment.BEFORE

    def __str__(self) -> str:
        return f"{self.write}: {self.moment}"


@dataclass
class Record:
    """What became of a FineTuneJob's operators."""

    fault: Fault
    writes: list[str] = field(default_factory=list)
    """Those that reached the API server, of all lives."""
    struck: bool = False
    lives: int = 0


class FaultyKube:
    """A Kube that breaks, or kills its operator, at one write."""

    def __init__(self, kube: Kube, record: Record, kill: Callable[[], None]) -> None:
        self._kube = kube
        self._record = record
        self._kill = kill

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest:
        return await self._kube.get(kind, namespace, name)

    async def pages(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = "", metadata_only: bool = False
    ) -> AsyncIterator[list[Body]]:
        async for page in self._kube.pages(kind, namespace, labels=labels, fields=fields, metadata_only=metadata_only):
            yield page

    async def create(self, manifest: Manifest) -> Manifest:
        return await self._write(name_of_create(manifest), lambda: self._kube.create(manifest))

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str, grace_seconds: int | None = None) -> None:
        await self._write(f"delete {kind.name}", lambda: self._kube.delete(kind, namespace, name, uid=uid, grace_seconds=grace_seconds))

    async def replace_status(self, job: Manifest, status: Manifest) -> Manifest:
        return await self._write(name_of_status(status), lambda: self._kube.replace_status(job, status))

    async def patch_event(self, namespace: str, name: str, change: Manifest) -> Manifest:
        return await self._write("count Event", lambda: self._kube.patch_event(namespace, name, change))

    async def _write(self, name: str, send: Callable[[], Awaitable[T]]) -> T:
        record = self._record
        if record.struck or record.fault.write != name:
            return await self._sent(name, send)
        record.struck, moment = True, record.fault.moment
        if moment is Moment.BROKEN:
            raise Transient("POST", name, code=0, reason="ClientOSError", message="the connection broke")
        if moment is Moment.BEFORE:
            await self._die()
        answer = await self._sent(name, send)
        if moment is Moment.LOST:
            raise Transient("POST", name, code=0, reason="ServerDisconnectedError", message="the answer was lost")
        if moment is Moment.IN:
            await self._die()
        asyncio.get_running_loop().call_soon(self._kill)
        return answer

    async def _sent(self, name: str, send: Callable[[], Awaitable[T]]) -> T:
        answer = await send()
        self._record.writes.append(name)
        return answer

    async def _die(self) -> None:
        self._kill()
        await asyncio.Event().wait()  # until this task is cancelled with all the others


def name_of_create(manifest: Manifest) -> str:
    """What a create makes, in words that are the same for every job."""
    if manifest["kind"] == "Event":
        return f"create Event {manifest['reason']}"
    segment = (manifest["metadata"].get("labels") or {}).get(c.SEGMENT_LABEL, "")
    return f"create {manifest['kind']} {segment}".strip()


def name_of_status(status: Manifest) -> str:
    """What a status says first of all: phase, reason and stage."""
    running: Manifest = condition({"status": status}, "Running") or {}
    return " ".join(filter(None, ["status", status.get("phase"), running.get("reason"), status.get("currentStage")]))


async def serve(job: Manifest, kube: Kube, informer: Informer, clock: Clock, record: Record) -> None:
    """Serve one FineTuneJob until cancelled: a life after the other, each knowing nothing of those before."""
    while True:
        killed = asyncio.Event()
        record.lives += 1
        stack = Stack(FaultyKube(kube, record, killed.set), clock)
        life = asyncio.create_task(_live(job, kube, informer, stack))
        try:
            await killed.wait()
        finally:
            life.cancel()
            await asyncio.wait({life})
        if not life.cancelled():
            life.result()


async def _live(job: Manifest, kube: Kube, informer: Informer, stack: Stack) -> None:
    uid, namespace = uid_of(job), job["metadata"]["namespace"]
    loop = asyncio.get_running_loop()

    def hear(kind: Kind, change: str, manifest: Manifest) -> None:
        if uid in (uid_of(manifest), job_uid_label(manifest)):
            loop.call_soon_threadsafe(stack.intake.deliver, kind, change, manifest)

    stack.index.put(FINE_TUNE_JOB, await kube.get(FINE_TUNE_JOB, namespace, job["metadata"]["name"]), watched=True)
    for kind in (JOB, POD, CLAIM):
        for manifest in await list_all(kube, kind, namespace, labels=f"{c.JOB_UID_LABEL}={uid}"):
            stack.index.put(kind, manifest, watched=True)
    informer.subscribe(hear)
    ready = asyncio.Event()
    ready.set()
    stack.queue.add(key_of(job))
    try:
        await work(stack.queue, stack.reconciler, ready)
    finally:
        informer.unsubscribe(hear)
