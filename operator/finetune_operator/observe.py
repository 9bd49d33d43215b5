"""Reads the cluster into Observed: from the index for free, or from the API server; and what a decision then says it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from finetune_api.constants import ConditionType
from finetune_operator.diagnose import event_time
from finetune_operator.errors import NotFound
from finetune_operator.index import Entry, Index, is_live, whole
from finetune_operator.kinds import (
    CLAIM,
    FINE_TUNE_JOB,
    JOB,
    NODE,
    POD,
    RUNTIME,
    SEEN_EVENT,
    Kind,
    controller_of,
    uid_of,
)
from finetune_operator.kube import Kube, list_all
from finetune_operator.model import Endpoint, Key, Live, Manifest, Need, Observed, Sibling
from finetune_operator.names import claim_name, is_reader, parse_job_name
from finetune_operator.nodes import Nodes
from finetune_operator.shared import Shared
from finetune_operator.views import PodView, holds


class Observer:
    def __init__(
        self,
        kube: Kube,
        index: Index,
        *,
        now: Callable[[], datetime],
        live: Callable[[str], Live | None] = lambda owner: None,
        endpoint: Callable[[], Endpoint | None] = lambda: None,
    ) -> None:
        """now: the time with its zone, as decisions and the status see it. live: what a job's pod reported last, by the job's uid.
        endpoint: where new pods report."""
        self._kube = kube
        self._index = index
        self._now = now
        self._live = live
        self._endpoint = endpoint
        self._nodes = Nodes(kube, now=now)
        self._runtimes = Shared(partial(list_all, kube, RUNTIME))

    def remember(self, key: Key) -> Observed | None:
        """What the index has of this job: good for seeing that nothing is to be done. None where the index lacks a part.

        Of a job that says that it has finished nothing is decided on its children but by what still does something, which a start lists whole.
        """
        job = self._index.job(key)
        if job is None or job.body is None:
            return None
        children = self._index.children(job.uid)
        manifest = whole(job.body)
        finished = holds(manifest, ConditionType.FINISHED)
        if any(child.body is None and (child.live or not finished) for child in children) or _hidden_jobs(manifest, children):
            return None
        return self._observed(manifest, [(child.kind, whole(child.body)) for child in children if child.body is not None])

    async def read(self, key: Key) -> Observed | None:
        """What the API server has of this job now; None where the job is gone. Raises KubeError."""
        try:
            job = await self._kube.get(FINE_TUNE_JOB, key.namespace, key.name)
        except NotFound:
            if (gone := self._index.job(key)) is not None:
                self._index.drop(gone.uid)
            return None
        self._index.put(FINE_TUNE_JOB, job, watched=False)
        known = self._index.children(uid_of(job))
        found = await asyncio.gather(*(self._confirm(child) for child in known))
        lost = await asyncio.gather(*(self._get(JOB, key.namespace, name) for name in _hidden_jobs(job, known)))
        children = [(child.kind, manifest) for child, manifest in zip(known, found, strict=True) if manifest is not None]
        return self._observed(job, children + [(JOB, manifest) for manifest in lost if manifest is not None])

    async def add(self, observed: Observed, needs: Iterable[Need]) -> Observed:
        """The same with what a decision needs. Raises KubeError."""
        for need in needs:
            observed = await self._add(observed, need)
        return observed

    def _observed(self, job: Manifest, children: Iterable[tuple[Kind, Manifest]]) -> Observed:
        """Sorted out by the one thing that tells whose a child is, its controller's uid; in the order of their names."""
        uid, namespace = uid_of(job), job["metadata"]["namespace"]
        here = sorted((pair for pair in children if pair[1]["metadata"]["namespace"] == namespace), key=lambda pair: _name(pair[1]))
        readers = tuple(
            manifest for kind, manifest in here if kind is JOB and is_reader(_name(manifest)) and controller_of(manifest) == uid
        )
        here = [(kind, manifest) for kind, manifest in here if kind is CLAIM or not is_reader(_name(manifest))]
        owners = {uid_of(manifest) for kind, manifest in here if kind is JOB and controller_of(manifest) in (uid, None)}
        return Observed(
            job=job,
            jobs=tuple(manifest for kind, manifest in here if kind is JOB and controller_of(manifest) == uid),
            pods=tuple(manifest for kind, manifest in here if kind is POD and _is_ours(manifest, job, owners)),
            orphans=tuple(manifest for kind, manifest in here if kind is JOB and controller_of(manifest) is None),
            readers=readers,
            claim=next((manifest for kind, manifest in here if kind is CLAIM and _name(manifest) == claim_name(job)), None),
            now=self._now(),
            live=self._live(uid),
            endpoint=self._endpoint(),
        )

    async def _confirm(self, child: Entry) -> Manifest | None:
        """The child as it is now, None where it is gone: a namesake is somebody else."""
        found = await self._get(child.kind, child.namespace, child.name)
        if found is None or uid_of(found) != child.uid:
            self._index.drop(child.uid)
            return None
        self._index.put(child.kind, found, watched=False)
        return found

    async def _get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        try:
            return await self._kube.get(kind, namespace, name)
        except NotFound:
            return None

    async def _add(self, observed: Observed, need: Need) -> Observed:
        match need:
            case Need.RUNTIMES:
                return replace(observed, runtimes=await self._runtimes.read())
            case Need.NODES:
                return replace(observed, nodes=await self._nodes.all())
            case Need.POD_NODES:
                hosts = sorted({pod["spec"]["nodeName"] for pod in observed.pods if pod["spec"].get("nodeName")})
                nodes = await asyncio.gather(*(self._get(NODE, None, host) for host in hosts))
                return replace(observed, pod_nodes=dict(zip(hosts, nodes, strict=True)))
            case Need.EVENTS:
                return replace(observed, events=await self._events(observed))
            case Need.SIBLINGS:
                return replace(observed, siblings=await self._siblings(observed.job))
        raise NotImplementedError(need)

    async def _siblings(self, job: Manifest) -> tuple[Sibling, ...]:
        """From the index alone, once every job of the namespace was seen whole. Nothing may be waited for after it is asked: who decides
        and reserves the output before anybody else looks, has it."""
        uri, namespace = ((job.get("spec") or {}).get("output") or {}).get("uri"), job["metadata"]["namespace"]
        if uri is None:
            return ()
        if self._index.unread(namespace):  # right after a start that did not wait for the watch: an earlier operator may have begun them
            async for page in self._kube.pages(FINE_TUNE_JOB, namespace):
                for other in page:
                    if uid_of(other) not in self._index.gone:
                        self._index.put(FINE_TUNE_JOB, other, watched=False)
        return self._index.siblings(uid_of(job), namespace, uri)

    async def _events(self, observed: Observed) -> tuple[Manifest, ...]:
        """Events about the children that are still at work: those of what has ended explain nothing more. Newest last."""
        live = [job for job in observed.jobs if is_live(JOB, job)] + [pod for pod in observed.pods if is_live(POD, pod)]
        namespace = observed.job["metadata"]["namespace"]
        lists = await asyncio.gather(
            *(list_all(self._kube, SEEN_EVENT, namespace, fields=f"involvedObject.uid={uid_of(child)}") for child in live)
        )
        return tuple(sorted((event for events in lists for event in events), key=event_time))


def _name(manifest: Manifest) -> str:
    name: str = manifest["metadata"]["name"]
    return name


def _is_ours(pod: Manifest, job: Manifest, owners: set[str]) -> bool:
    """Whether a Job of this FineTuneJob controls the pod, or did, or nothing does: a label alone makes nobody's pod ours."""
    seen, metadata = PodView(pod), job["metadata"]
    return seen.owner is None or seen.owner in owners or parse_job_name(seen.owner_name, metadata["name"], metadata["uid"]) is not None


def _hidden_jobs(job: Manifest, known: Iterable[Entry]) -> list[str]:
    """Jobs that our status names as at work and the watch does not show: somebody took our label off."""
    names = {child.name for child in known if child.kind is JOB}
    attempts: list[dict[str, Any]] = (job.get("status") or {}).get("attempts") or []
    return sorted({attempt["job"] for attempt in attempts if attempt.get("job") and not attempt.get("finishedAt")} - names)
