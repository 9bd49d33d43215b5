"""What a look at a job asks of the API server, beside what it decides. The door to it is a stand-in that answers nothing and counts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api import constants as c
from finetune_operator.errors import NotFound
from finetune_operator.index import Index
from finetune_operator.kinds import FINE_TUNE_JOB, JOB, POD
from finetune_operator.model import Create, Decision, Key, Manifest, Observed
from finetune_operator.observe import Observer
from finetune_operator.reconcile import Reconciler, with_what_was_read

KEY = Key("team", "example")
STANDS = {"phase": "Running"}


class Silent:
    """Knows the job, and nothing else."""

    def __init__(self, job: Manifest) -> None:
        self._job = job
        self.asked: list[str] = []

    async def get(self, kind: Any, namespace: str | None, name: str) -> Manifest:
        self.asked.append(f"get {kind.name}")
        return self._job

    async def create(self, manifest: Manifest) -> Manifest:
        self.asked.append(f"create {manifest['kind']}")
        return manifest

    async def replace_status(self, job: Manifest, status: Manifest) -> Manifest:
        self.asked.append(f"status {status['phase']}")
        return {**job, "status": status}


class Mute:
    async def write(self, job: Manifest, notes: Any) -> None:
        return None


def job(status: dict[str, Any]) -> Manifest:
    metadata = {"name": "example", "namespace": "team", "uid": "u", "resourceVersion": "5", "generation": 1}
    return {"apiVersion": FINE_TUNE_JOB.api_version, "kind": FINE_TUNE_JOB.name, "metadata": metadata, "spec": {}, "status": status}


def asked(decision: Decision, status: dict[str, Any] | None = None) -> list[str]:
    """What one look asks, where this is the decision."""
    manifest, index = job(status or STANDS), Index()
    index.put(FINE_TUNE_JOB, manifest, watched=True)
    kube: Any = Silent(manifest)
    recorder: Any = Mute()
    reconciler = Reconciler(kube, index, Observer(kube, index, now=lambda: datetime(2030, 1, 1, tzinfo=UTC)), recorder, lambda _: decision)
    asyncio.run(reconciler.reconcile(KEY))
    return list(kube.asked)


@pytest.mark.parametrize("phase", ["Pending", "Running", "Suspending", "Suspended", "Succeeded", "Failed"])
def test_where_nothing_is_to_be_written_nothing_is_asked(phase: str) -> None:
    assert asked(Decision(status={"phase": phase}), {"phase": phase}) == []


@pytest.mark.parametrize("phase", ["Pending", "Preparing", "Queued", "Running", "Suspending"])
def test_how_a_job_goes_on_is_told_without_a_read(phase: str) -> None:
    assert asked(Decision(status={"phase": phase, "new": True})) == [f"status {phase}"]


@pytest.mark.parametrize("phase", ["Suspended", "Succeeded", "Failed"])
def test_an_end_is_told_after_a_read(phase: str) -> None:
    assert asked(Decision(status={"phase": phase})) == ["get FineTuneJob", f"status {phase}"]


OVER = {"conditions": [{"type": "Complete", "status": "True"}]}
GONE = "2030-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("batch", "phase", "deleted", "read"),
    [
        (OVER, "Succeeded", None, False),
        (OVER, "Failed", None, False),
        ({}, "Succeeded", None, True),
        (OVER, "Running", None, True),
        (OVER, "Succeeded", GONE, True),
    ],
    ids=["over", "failed", "Job goes on", "pod goes on", "pod is being deleted"],
)
@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_what_is_over_is_not_asked_for_again(end: str, batch: dict[str, Any], phase: str, deleted: str | None, read: bool) -> None:
    manifest, index = job(STANDS), Index()
    owners = [{"kind": "FineTuneJob", "name": "example", "uid": "u", "controller": True}]
    meta = {"namespace": "team", "resourceVersion": "6"}
    child = {"kind": "Job", "metadata": {**meta, "name": OURS, "uid": "j", "ownerReferences": owners}, "spec": {}, "status": batch}
    of_job = [{"kind": "Job", "name": OURS, "uid": "j", "controller": True}]
    pod = {"kind": "Pod", "metadata": {**meta, "name": "p", "uid": "p", "ownerReferences": of_job}, "spec": {}, "status": {"phase": phase}}
    if deleted is not None:
        pod["metadata"]["deletionTimestamp"] = deleted  # type: ignore[index]
    for kind, each in ((FINE_TUNE_JOB, manifest), (JOB, child), (POD, pod)):
        index.put(kind, each, watched=True)
    kube: Any = Silent(manifest)
    recorder: Any = Mute()
    ended = Decision(status={"phase": end})
    reconciler = Reconciler(kube, index, Observer(kube, index, now=lambda: datetime(2030, 1, 1, tzinfo=UTC)), recorder, lambda _: ended)
    asyncio.run(reconciler.reconcile(KEY))
    assert kube.asked[-1] == f"status {end}"
    assert ("get FineTuneJob" in kube.asked) is read


@pytest.mark.parametrize(("finished", "read"), [("True", False), ("False", True)])
def test_a_start_reads_no_child_of_a_finished_job_that_waits_for_its_deletion(finished: str, read: bool) -> None:
    """Thousands may wait so, each with children of which a start lists the metadata alone."""
    manifest, index = job({"phase": "Succeeded", "conditions": [{"type": "Finished", "status": finished}]}), Index()
    index.put(FINE_TUNE_JOB, {**manifest, "spec": {"ttlSecondsAfterFinished": 60}}, watched=True)
    for kind in (JOB, POD):
        metadata = {"name": kind.plural, "namespace": "team", "uid": kind.name, "resourceVersion": "3", "labels": {c.JOB_UID_LABEL: "u"}}
        index.note(kind, {"metadata": metadata}, watched=True)
    kube: Any = Silent(manifest)
    remembered = Observer(kube, index, now=lambda: datetime(2030, 1, 1, tzinfo=UTC)).remember(KEY)
    assert (remembered is None) == read


def test_a_job_that_is_deleted_before_its_status_is_written_is_gone() -> None:
    manifest, index = job(STANDS), Index()
    index.put(FINE_TUNE_JOB, manifest, watched=True)

    class Deleted(Silent):
        async def replace_status(self, job: Manifest, status: Manifest) -> Manifest:
            raise NotFound("PUT", "status", code=404, reason="NotFound", message="not found")

    kube: Any = Deleted(manifest)
    recorder: Any = Mute()
    decision = Decision(status={"phase": "Pending"}, requeue_after=30)
    reconciler = Reconciler(kube, index, Observer(kube, index, now=lambda: datetime(2030, 1, 1, tzinfo=UTC)), recorder, lambda _: decision)
    assert asyncio.run(reconciler.reconcile(KEY)) is None
    assert index.job(KEY) is None


def test_nothing_is_made_without_a_read() -> None:
    made = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "ft", "namespace": "team", "uid": "j", "resourceVersion": "6"}}
    assert asked(Decision(actions=(Create(made),), status=STANDS))[:2] == ["get FineTuneJob", "create Job"]


def test_a_job_that_came_to_rest_is_left_alone() -> None:
    rests = {"observedGeneration": 1, "conditions": [{"type": "Finished", "status": "True"}], "phase": "Succeeded"}
    assert asked(Decision(status={"phase": "Failed"}), rests) == []


def seen(*pods: tuple[str, str | None], **read: Any) -> Observed:
    found = tuple({"kind": POD.name, "metadata": {"uid": uid}, "spec": {"nodeName": node}} for uid, node in pods)
    children = ({"kind": JOB.name, "metadata": {"uid": "j"}, "spec": {}},)
    return Observed(job=job(STANDS), jobs=children, pods=found, now=datetime(2030, 1, 1, tzinfo=UTC), **read)


@pytest.mark.parametrize(
    ("now", "kept"),
    [([("p", "n1")], True), ([("p", "n2")], False), ([("q", "n1")], False), ([], False), ([("p", "n1"), ("q", None)], False)],
)
def test_what_was_read_is_kept_for_the_same_children_in_the_same_places(now: list[tuple[str, str | None]], kept: bool) -> None:
    before = seen(("p", "n1"), runtimes=(), nodes=(), pod_nodes={"n1": None}, events=(), siblings=())
    after = with_what_was_read(seen(*now), before)
    read = (after.runtimes, after.nodes, after.pod_nodes, after.events)
    assert read == (((), (), {"n1": None}, ()) if kept else (None, None, None, None))
    assert after.siblings is None, "who has an output is asked anew"


OURS = "ft-example-u-1-1"


@pytest.mark.parametrize(
    ("kind", "owner", "uid", "counted"),
    [
        ("Job", OURS, "j", True),
        ("Job", "ft-example-u-1-2", "gone", True),
        (None, None, None, True),
        ("ReplicaSet", "web", "r", False),
        ("Job", "nightly", "k", False),
        ("Job", "ft-other-u-1-1", "k", False),
    ],
    ids=["of our Job", "of a Job that is gone", "of nobody", "of a ReplicaSet", "of a foreign Job", "of another FineTuneJob's"],
)
@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "read"])
def test_a_label_alone_makes_no_pod_ours(kind: str | None, owner: str | None, uid: str | None, counted: bool, remembered: bool) -> None:
    _, seen = world_of_one(pod={"kind": kind, "name": owner, "uid": uid, "controller": True} if kind else None)
    found = asyncio.run(seen(remembered))
    assert found is not None
    assert [each["metadata"]["name"] for each in found.pods] == (["p"] if counted else [])
    assert [each["metadata"]["name"] for each in found.jobs] == [OURS]


@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "read"])
def test_a_labelled_pod_of_another_namespace_is_nothing_and_not_asked_for(remembered: bool) -> None:
    index, seen = world_of_one(pod=None, namespace="elsewhere")
    found = asyncio.run(seen(remembered))
    assert found is not None and found.pods == ()
    stranger = index.get("p-uid")
    assert stranger is not None and index.keys_of(stranger) == frozenset()


def world_of_one(*, pod: dict[str, Any] | None, namespace: str = "team") -> tuple[Index, Any]:
    """A job with one Job, and a pod with its label; and a look at it."""
    labels = {"finetune.dev/job-uid": "u", "finetune.dev/managed": "true"}
    made = {"name": OURS, "namespace": "team", "uid": "j", "resourceVersion": "6", "ownerReferences": [{"uid": "u", "controller": True}]}
    batch = {"kind": "Job", "metadata": {**made, "labels": labels}, "spec": {}}
    metadata = {"name": "p", "namespace": namespace, "uid": "p-uid", "resourceVersion": "7", "labels": labels}
    stranger = {
        "kind": "Pod",
        "metadata": {**metadata, "ownerReferences": [pod] if pod else []},
        "spec": {},
        "status": {"phase": "Running"},
    }
    index, there = Index(), {("FineTuneJob", "team"): job(STANDS), ("Job", "team"): batch, ("Pod", "team"): stranger}
    for kind, manifest in ((FINE_TUNE_JOB, job(STANDS)), (JOB, batch), (POD, stranger)):
        index.put(kind, manifest, watched=True)

    class Answers:
        async def get(self, kind: Any, namespace: str | None, name: str) -> Manifest:
            return there[kind.name, str(namespace)]

    kube: Any = Answers()
    observer = Observer(kube, index, now=lambda: datetime(2030, 1, 1, tzinfo=UTC))

    async def seen(remembered: bool) -> Observed | None:
        return observer.remember(KEY) if remembered else await observer.read(KEY)

    return index, seen
