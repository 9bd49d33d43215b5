"""Which jobs write into one folder: known without a list, and never two of them begin, in whatever order they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_operator.decide import decide
from finetune_operator.errors import NotFound, Refused, Transient
from finetune_operator.index import Index
from finetune_operator.kinds import FINE_TUNE_JOB, JOB, RUNTIME, Kind, key_of
from finetune_operator.model import Manifest, Need
from finetune_operator.observe import Observer
from finetune_operator.reconcile import Reconciler
from tests.unit.machinery.objects import batch_job, finished
from tests.unit.operator import worlds

NOW = datetime(2030, 1, 1, 12, 0, 30, tzinfo=UTC)


def writer(uid: str, uri: str = "pvc://data/models/one", *, namespace: str = "team-a", version: int = 1, **status: Any) -> Manifest:
    """A FineTuneJob with an output, made in the same second as every other."""
    job = worlds.job(spec__output={"uri": uri}, metadata__name=f"job-{uid}", metadata__uid=uid, metadata__namespace=namespace)
    job["metadata"]["resourceVersion"] = str(version)
    return {**job, "status": status} if status else job


class Cluster:
    """Holds some jobs and one runtime; what is made stays, and takes a turn of the loop."""

    def __init__(self, *jobs: Manifest) -> None:
        self.jobs = {job["metadata"]["name"]: job for job in jobs}
        self.made: list[str] = []
        self.listed: list[str] = []
        self.failing: Exception | None = None
        self.meanwhile: list[Awaitable[None]] = []
        """What goes on while something is made."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest:
        await asyncio.sleep(0)
        if kind is not FINE_TUNE_JOB or name not in self.jobs:
            raise NotFound("GET", name, code=404, reason="NotFound", message="")
        return self.jobs[name]

    async def pages(self, kind: Kind, namespace: str | None = None, **_: object) -> AsyncIterator[list[Manifest]]:
        await asyncio.sleep(0)
        self.listed.append(kind.plural)
        yield [worlds.runtime()] if kind is RUNTIME else list(self.jobs.values())

    async def create(self, manifest: Manifest) -> Manifest:
        await asyncio.sleep(0)
        if self.meanwhile:
            await self.meanwhile.pop()
        if self.failing is not None:
            raise self.failing
        self.made.append(manifest["metadata"]["name"])
        return {**manifest, "metadata": {**manifest["metadata"], "uid": f"uid-{len(self.made)}", "resourceVersion": "9"}}

    async def replace_status(self, job: Manifest, status: Manifest) -> Manifest:
        return {**job, "status": status}


class Mute:
    async def write(self, job: Manifest, notes: Any) -> None:
        return None


def operator(cluster: Any, index: Index) -> Reconciler:
    mute: Any = Mute()
    return Reconciler(cluster, index, Observer(cluster, index, now=lambda: NOW), mute, decide)


async def look(reconciler: Reconciler, *jobs: Manifest) -> None:
    """Workers take these jobs at once."""
    await asyncio.gather(*(reconciler.reconcile(key_of(job)) for job in jobs), return_exceptions=True)


def known(*jobs: Manifest) -> Index:
    index = Index()
    for job in jobs:
        index.put(FINE_TUNE_JOB, job, watched=True)
    return index


def names(index: Index, job: Manifest) -> set[str]:
    return {each.name for each in index.siblings(job["metadata"]["uid"], "team-a", job["spec"]["output"]["uri"])}


def test_siblings_write_into_a_folder_of_the_same_name_in_the_same_namespace() -> None:
    job = writer("a")
    others = [writer("b", "pvc://other/./models//one"), writer("c", "pvc://data/models/two"), writer("d", namespace="team-b")]
    index = known(job, *others, worlds.job(metadata__uid="e", metadata__name="job-e"))
    assert names(index, job) == {"job-b"}
    index.drop("b")
    assert names(index, job) == set()


def test_a_finished_sibling_is_known_without_its_body() -> None:
    job = writer("a")
    index = known(job, writer("b", **finished()))
    assert index.get("b").body is None  # type: ignore[union-attr]
    assert names(index, job) == {"job-b"}


def test_a_sibling_has_begun_once_it_has_a_job() -> None:
    job = writer("a")
    index = known(job, writer("b"))
    begun = [each.output.begun for each in index.siblings("a", "team-a", "pvc://data/models/one")]
    index.put(JOB, batch_job(owner="b", label="b"), watched=True)
    assert begun + [each.output.begun for each in index.siblings("a", "team-a", "pvc://data/models/one")] == [False, True]


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_of_two_jobs_that_are_looked_at_at_once_one_begins(order: tuple[str, str]) -> None:
    jobs = [writer(uid) for uid in order]
    cluster = Cluster(*jobs)
    asyncio.run(look(operator(cluster, known(*jobs)), *jobs))
    assert [name[:8] for name in cluster.made] == ["ft-job-a"], "the same second: the lower uid"
    assert "finetunejobs" not in cluster.listed


def test_an_older_job_that_comes_while_a_younger_one_begins_is_refused() -> None:
    """Its watch was late: when the younger one was decided on, nobody knew of it."""
    older, younger = writer("a"), writer("b")
    cluster, index = Cluster(older, younger), known(younger)

    async def come() -> None:
        index.put(FINE_TUNE_JOB, older, watched=True)
        await look(operator(cluster, index), older)

    cluster.meanwhile.append(come())
    asyncio.run(look(operator(cluster, index), younger))
    asyncio.run(look(operator(cluster, index), older))
    assert [name[:8] for name in cluster.made] == ["ft-job-b"]


@pytest.mark.parametrize(
    ("failing", "made"),
    [
        (Transient("POST", "jobs", code=0, reason="TimeoutError", message=""), "ft-job-b"),
        (Refused("POST", "jobs", code=403, reason="Forbidden", message="exceeded quota"), "ft-job-a"),
    ],
    ids=["not known whether it was made", "refused"],
)
def test_who_began_without_an_answer_keeps_the_output_and_who_was_refused_does_not(failing: Exception, made: str) -> None:
    older, younger = writer("a"), writer("b")
    cluster, index = Cluster(older, younger), known(younger)
    cluster.failing = failing
    asyncio.run(look(operator(cluster, index), younger))
    cluster.failing = None
    index.put(FINE_TUNE_JOB, older, watched=True)
    for job in (older, younger):
        asyncio.run(look(operator(cluster, index), job))
    assert [name[:8] for name in cluster.made] == [made]


def test_jobs_of_which_only_names_are_known_are_read_once() -> None:
    """An operator that starts while its watch is late: what an earlier one had begun counts."""
    job, other = writer("b"), writer("a", attempts=[{"segment": "task", "number": 1}])
    cluster, index = Cluster(job, other), known(job)
    index.note(FINE_TUNE_JOB, other)
    for _ in range(2):
        asyncio.run(look(operator(cluster, index), job))
    assert cluster.made == []
    assert cluster.listed.count("finetunejobs") == 1


def test_a_thousand_jobs_that_wait_for_gpus_read_the_nodes_once() -> None:
    now = [NOW]
    node = {"metadata": {"name": "n", "labels": {}}, "status": {"allocatable": {"nvidia.com/gpu": "8"}, "images": [{"names": ["x"] * 50}]}}

    class Nodes(Cluster):
        async def pages(self, kind: Kind, namespace: str | None = None, **_: object) -> AsyncIterator[list[Manifest]]:
            async for _page in super().pages(kind):
                yield [node]

    cluster: Any = Nodes()
    observer = Observer(cluster, Index(), now=lambda: now[0])
    seen = worlds.World().observed()
    small = ({"metadata": {"name": "n"}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}},)

    async def scene() -> None:
        for seconds, lists in ((0, 1), (19, 1), (20, 2), (-3600, 3)):
            now[0] = NOW + timedelta(seconds=seconds)
            found = await asyncio.gather(*(observer.add(seen, [Need.NODES]) for _ in range(1000)))
            assert all(each.nodes == small for each in found)
            assert cluster.listed == ["nodes"] * lists

    asyncio.run(scene())
