"""FineTuneJobs from Python: one method a verb. Nothing is cached: what a method returns is what the API server said then.

async with AsyncClient(namespace="team-a") as client:
    await client.apply(manifest)
    job = await client.wait("support-intents")
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self

from finetune_api import constants as c
from finetune_api.reading import What
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_client import access, logs
from finetune_client.errors import ClientError, JobEnded, NotFound, WaitTimeout
from finetune_client.fetch import Fetched, Transfer, fetch
from finetune_client.objects import Event, Job, LogLine, without_what_the_server_writes
from finetune_client.transport import Body, Transport
from finetune_client.watch import Change, Kind, Trouble, list_all, unheard, watch

FIELD_MANAGER: Final = "finetune"
ROOT: Final = f"/apis/{c.API_VERSION}"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
LOOK_SECONDS: Final = 2.0
"""How often a follower of logs looks for the next pod."""
Manifest = FineTuneJob | Mapping[str, Any]


class Applied(NamedTuple):
    """What applying came to."""

    what: Literal["created", "configured", "unchanged"]
    kind: str
    manifest: Mapping[str, Any]

    @property
    def job(self) -> Job:
        return Job(self.manifest)


class JobChange(NamedTuple):
    """One step of a watch."""

    kind: Kind
    job: Job


class AsyncClient:
    """A connection to one cluster, as kubectl would make it; `namespace` where a method names none.

    Every method raises a ClientError of `finetune_client.errors`, whose message and hint are for people.
    """

    def __init__(self, *, kubeconfig: Path | str | None = None, context: str | None = None, namespace: str | None = None) -> None:
        file = Path(kubeconfig) if kubeconfig is not None else None
        load = partial(access.load, file, context, namespace)
        self._transport = Transport(load, user_agent=f"finetune-client/{version('finetune-operator')}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def namespace(self) -> str:
        """The namespace that is meant where a method names none: the one given, else the context's."""
        return (await self._transport.access()).namespace

    # One request

    async def apply(self, manifest: Manifest, *, namespace: str | None = None, force: bool = False, dry_run: bool = False) -> Applied:
        """Server-side apply of a FineTuneJob, or of a ClusterFineTuneRuntime as a mapping. force: take over fields that others own.

        Raises:
            Invalid: The cluster refuses it; `causes` names the fields.
            Conflict: Another manager owns a field.
        """
        document = await self._document(manifest, namespace)
        kind, metadata = document["kind"], document["metadata"]
        path, what = _object(kind, metadata.get("namespace"), metadata["name"])
        try:
            _, before = await self._transport.call("GET", path, what=what)
        except NotFound:
            before = {}
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": str(force).lower()}
        query |= {"dryRun": "All"} if dry_run else {}
        _, after = await self._transport.call("PATCH", path, what=what, query=query, body=document, content_type=APPLY)
        if not before:
            return Applied("created", kind, after)
        same = _meant(before) == _meant(after)
        return Applied("unchanged" if same else "configured", kind, after)

    async def create(self, manifest: Manifest, *, namespace: str | None = None, dry_run: bool = False) -> Job:
        """Create a FineTuneJob. Raises AlreadyExists where the name is taken."""
        document = await self._document(manifest, namespace)
        path, what = _object(document["kind"], document["metadata"].get("namespace"), "")
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        _, found = await self._transport.call("POST", path, what=f"namespace for {what}", query=query, body=document)
        return Job(found)

    async def get(self, name: str, *, namespace: str | None = None) -> Job:
        """Read a job. Raises NotFound, which says what name may have been meant."""
        path, what = await self._job(name, namespace)
        try:
            _, found = await self._transport.call("GET", path, what=what)
        except NotFound as error:
            raise NotFound(error.message, await self._near(name, namespace)) from error
        return Job(found)

    async def list(self, *, namespace: str | None = None, all_namespaces: bool = False, labels: str = "") -> list[Job]:
        """Jobs by namespace and name. labels: a selector, as kubectl's -l."""
        path = await self._collection(namespace, all_namespaces)
        found, _ = await list_all(self._transport, path, what="FineTuneJobs", query={"labelSelector": labels} if labels else {})
        named = [Job({**item, "apiVersion": c.API_VERSION, "kind": c.KIND}) for item in found]
        return sorted(named, key=lambda job: (job.namespace, job.name))

    async def suspend(self, name: str, *, namespace: str | None = None) -> Job:
        """Save, stop, and give the GPUs back; `resume` goes on from there. Returns at once: wait for Suspended."""
        return await self._patch(name, namespace, {"suspend": True})

    async def resume(self, name: str, *, namespace: str | None = None) -> Job:
        """Go on where it was suspended. Returns at once."""
        return await self._patch(name, namespace, {"suspend": False})

    async def cancel(self, name: str, *, namespace: str | None = None, timeout: float | None = 600) -> Job:
        """Suspend it, and wait until nothing of it runs any more: saved, its GPUs given back, its record and its model kept.

        Only `delete` ends a job for good. A job that has ended is left as it is. timeout: seconds; None waits for ever.
        """
        job = await self.get(name, namespace=namespace)
        if job.finished:
            return job
        await self.suspend(name, namespace=namespace)
        try:
            return await self.wait(name, "Suspended", namespace=namespace, timeout=timeout)
        except JobEnded as error:
            return error.job

    async def delete(self, name: str, *, namespace: str | None = None) -> None:
        """Delete a job with its pods. The model stays, unless the job says otherwise. Returns when that is under way."""
        path, what = await self._job(name, namespace)
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            await self._transport.call("DELETE", path, what=what, body=body)
        except NotFound as error:
            raise NotFound(error.message, await self._near(name, namespace)) from error

    async def events(self, job: Job) -> tuple[Event, ...]:
        """What happened to a job, oldest first; the cluster forgets after an hour or so."""
        path, what, query = _events_of(job)
        found, _ = await list_all(self._transport, path, what=what, query=query)
        events = [Event.of(each) for each in found]
        return tuple(sorted(events, key=lambda event: (event.at is not None, event.at.timestamp() if event.at else 0.0)))

    # What goes on

    async def watch(
        self,
        name: str | None = None,
        *,
        namespace: str | None = None,
        all_namespaces: bool = False,
        labels: str = "",
        trouble: Trouble = unheard,
    ) -> AsyncGenerator[JobChange | None, None]:
        """Yield what is there (added), then None once, then each change, for ever; broken connections are made again.

        trouble: is told each time that one breaks, and None when it is back. It changes nothing.
        """
        path = await self._collection(namespace, all_namespaces)
        query = {"labelSelector": labels} if labels else {}
        query |= {"fieldSelector": f"metadata.name={name}"} if name else {}
        async with aclosing(watch(self._transport, path, what="FineTuneJobs", query=query, trouble=trouble)) as changes:
            async for change in changes:
                yield _job_change(change) if change is not None else None

    async def wait(
        self,
        name: str,
        condition: str = "Finished",
        *,
        namespace: str | None = None,
        timeout: float | None = None,
        seen: Callable[[Job], None] = lambda job: None,
        trouble: Trouble = unheard,
    ) -> Job:
        """Wait until a condition is True of the spec as it is now. timeout: seconds; None waits for ever. seen: hears each state on the way.

        Raises:
            NotFound: There is no such job, or it was deleted in the meantime.
            JobEnded: It ended, and the condition will not come any more; `job` says how.
            WaitTimeout: It did not come in time.
        """
        last: Job | None = None
        try:
            async with asyncio.timeout(timeout), aclosing(self.stream(name, namespace=namespace, trouble=trouble)) as states:
                async for job in states:
                    last = job
                    seen(job)
                    if job.holds(condition) and (job.current or job.finished):
                        return job
        except TimeoutError as error:
            hint = "It goes on; nothing was changed."
            raise WaitTimeout(f"{name} is not {condition} after {timeout:g} s{_stands(last)}", hint, last) from error
        assert last is not None
        raise JobEnded(f"{name} will not be {condition}: it has ended, {last.phase}", _why(last), last)

    async def stream(self, name: str, *, namespace: str | None = None, trouble: Trouble = unheard) -> AsyncGenerator[Job, None]:
        """Yield a job as it is, then each time that it has changed, until it has ended.

        Raises:
            NotFound: There is no such job, or it was deleted in the meantime.
        """
        uid, deleted = "", f"{name} was deleted"
        async with aclosing(self.watch(name, namespace=namespace, trouble=trouble)) as changes:
            async for change in changes:
                if change is None:
                    if not uid:
                        await self.get(name, namespace=namespace)  # says what is missing, and what may have been meant
                    continue
                if change.kind == "deleted" or (uid and change.job.uid != uid):
                    raise NotFound(deleted, "Its model stays where status.artifacts said, unless the job said otherwise.")
                uid = change.job.uid
                yield change.job
                if change.job.finished:
                    return

    async def stream_events(self, job: Job, *, trouble: Trouble = unheard) -> AsyncGenerator[Event, None]:
        """Yield what happened to a job and what happens, for ever; a repetition comes again, with its count."""
        path, what, query = _events_of(job)
        async with aclosing(watch(self._transport, path, what=what, query=query, trouble=trouble)) as changes:
            async for change in changes:
                if change is not None and change.kind != "deleted":
                    yield Event.of(change.manifest)

    async def logs(
        self, name: str, *, namespace: str | None = None, follow: bool = False, every: bool = False, tail: int | None = None
    ) -> AsyncGenerator[LogLine, None]:
        """Yield what the newest pod wrote; with `every`, what all pods wrote that are still there, oldest first.

        follow: go on with what is written, also by the pods that come after, until the job has ended. tail: only so many lines of each container.

        Raises:
            NotFound: There is no such job, or no pod of it has begun (and nobody follows).
        """
        job = await self.get(name, namespace=namespace)
        read: set[tuple[str, str]] = set()
        found = await logs.unread(self._transport, job.namespace, job.uid, read=read)
        if not every and found:
            read |= {(source.pod, source.container) for source in found if source.pod != found[-1].pod}
            found = [source for source in found if source.pod == found[-1].pod]
        if not found and not follow:
            raise NotFound(f"no pod of {name} has a log now", _no_pod(job))
        while True:
            for source in found:
                read.add((source.pod, source.container))
                try:
                    async with aclosing(logs.lines(self._transport, job.namespace, source, follow=follow, tail=tail)) as lines:
                        async for line in lines:
                            yield line
                except NotFound:  # gone since it was listed: the others are still there
                    if not follow and len(found) == 1:
                        raise
            if not follow:
                return
            ended = (await self.get(name, namespace=namespace)).finished  # before the look, so that no pod is missed
            found = await logs.unread(self._transport, job.namespace, job.uid, read=read)
            if not found:
                if ended:
                    return
                await asyncio.sleep(LOOK_SECONDS)

    async def fetch(
        self,
        name: str,
        what: What | str,
        folder: Path | str,
        *,
        namespace: str | None = None,
        force: bool = False,
        timeout: float | None = 300,
        seen: Callable[[Transfer], None] = lambda transfer: None,
    ) -> Fetched:
        """Bring what a job that has ended left: its report (with the model card), adapter, merged model, or logs. Verified by sha256.

        The operator has a pod read it, so nobody needs a right to make one. force: into a folder that is not empty. timeout: seconds without
        anything new. seen: hears how far it is.

        Raises:
            Unreadable: The job has not ended or did not publish it, or it is gone from the volume, or too large.
            Unwritable: The folder is not empty, or can't be written.
            WaitTimeout: Nothing came in time; the message says what it waits for.
        """
        job = await self.get(name, namespace=namespace)
        path, _ = await self._job(name, namespace)
        return await fetch(self._transport, path, job, What(what), Path(folder), force=force, timeout=timeout, seen=seen)

    # Inside

    async def _document(self, manifest: Manifest, namespace: str | None) -> dict[str, Any]:
        document = manifest.model_dump(mode="json", exclude_unset=True) if isinstance(manifest, FineTuneJob) else dict(manifest)
        document = without_what_the_server_writes(document)
        if document["kind"] == c.KIND:
            own = document["metadata"].get("namespace")
            document["metadata"]["namespace"] = namespace or own or await self.namespace()
        return document

    async def _patch(self, name: str, namespace: str | None, spec: Body) -> Job:
        path, what = await self._job(name, namespace)
        try:
            _, found = await self._transport.call(
                "PATCH", path, what=what, query={"fieldManager": FIELD_MANAGER}, body={"spec": spec}, content_type=MERGE
            )
        except NotFound as error:
            raise NotFound(error.message, await self._near(name, namespace)) from error
        return Job(found)

    async def _job(self, name: str, namespace: str | None) -> tuple[str, str]:
        return _object(c.KIND, namespace or await self.namespace(), name)

    async def _collection(self, namespace: str | None, all_namespaces: bool) -> str:
        return f"{ROOT}/{c.PLURAL}" if all_namespaces else f"{ROOT}/namespaces/{namespace or await self.namespace()}/{c.PLURAL}"

    async def _near(self, name: str, namespace: str | None) -> str:
        """What a name that is not there may have meant."""
        try:
            names = [job.name for job in await self.list(namespace=namespace)]
        except ClientError:
            return "Check the name and the namespace."
        near = difflib.get_close_matches(name, names, n=1)
        if near:
            return f"Did you mean {near[0]}?"
        return (
            "Check the name and the namespace; `finetune get -A` lists all jobs."
            if names
            else "This namespace has no jobs: is it the right one?"
        )


def _object(kind: str, namespace: str | None, name: str) -> tuple[str, str]:
    """The path of an object (of its collection, without a name), and what it is in words."""
    place = f"/namespaces/{namespace}" if kind == c.KIND else ""
    plural = c.PLURAL if kind == c.KIND else c.RUNTIME_PLURAL
    where = f" in the namespace {namespace}" if kind == c.KIND else ""
    return f"{ROOT}{place}/{plural}" + (f"/{name}" if name else ""), f"{kind} {name}{where}"


def _events_of(job: Job) -> tuple[str, str, dict[str, str]]:
    path = f"/api/v1/namespaces/{job.namespace}/events"
    return path, f"events in the namespace {job.namespace}", {"fieldSelector": f"involvedObject.uid={job.uid}"}


def _job_change(change: Change) -> JobChange:
    return JobChange(change.kind, Job({**change.manifest, "apiVersion": c.API_VERSION, "kind": c.KIND}))


def _meant(manifest: Mapping[str, Any]) -> object:
    """What an author can write of an object."""
    document = without_what_the_server_writes(manifest)
    return document.get("spec"), document["metadata"].get("labels"), document["metadata"].get("annotations")


def _stands(job: Job | None) -> str:
    return f": it is {job.phase or 'not looked at by an operator yet'}" + (f", {job.says}" if job.says else "") if job is not None else ""


def _why(job: Job) -> str:
    failure = job.raw_status.get("failure") or {}
    return f"{failure.get('reason')}: {failure.get('message')}" if failure else ""


def _no_pod(job: Job) -> str:
    if job.finished:
        return 'Its pods are gone. Their logs lie in the run folder: `finetune logs`, or fetch(…, "logs", folder), has them read there.'
    return f"It is {job.phase or 'not looked at by an operator yet'}{f': {job.says}' if job.says else ''}. With --follow (follow=True) it is waited for."
