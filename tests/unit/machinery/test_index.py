"""Who belongs to whom, what is remembered of it, and what is not."""

from __future__ import annotations

import pytest

from finetune_api import constants as c
from finetune_operator.index import Index, is_live, is_settled, slim, whole
from finetune_operator.kinds import CLAIM, FINE_TUNE_JOB, JOB, POD
from finetune_operator.model import Key
from tests.unit.machinery.objects import batch_job, claim, fine_tune_job, finished, pod

KEY = Key("team-a", "support")
READER = "ft-support-0a1b2c3d-read-1a2b3c4d"
REQUEST = '{"id": "1a2b3c4d", "what": "report"}'


def full() -> Index:
    index = Index()
    index.put(FINE_TUNE_JOB, fine_tune_job(), watched=True)
    index.put(JOB, batch_job(), watched=True)
    index.put(POD, pod(), watched=True)
    return index


def names(index: Index, uid: str = "j1") -> list[str]:
    return [entry.name for entry in index.children(uid)]


def test_a_job_finds_its_jobs_their_pods_and_its_claim() -> None:
    index = full()
    index.put(CLAIM, claim(), watched=False)
    assert names(index) == ["ft-support-1", "ft-support-1-x", "ft-support-j1"]


def test_a_pod_without_our_label_is_found_through_its_job() -> None:
    index = full()
    index.put(POD, pod("unlabelled", uid="p2", label=None), watched=True)
    assert "unlabelled" in names(index)


def test_a_pod_that_lost_its_job_is_found_by_its_label() -> None:
    index = full()
    index.drop("b1")
    assert names(index) == ["ft-support-1-x"]


@pytest.mark.parametrize("kind", [FINE_TUNE_JOB, JOB, POD])
def test_an_event_of_each_kind_leads_to_the_job(kind: object) -> None:
    index = full()
    entry = next(entry for entry in (index.get("j1"), index.get("b1"), index.get("p1")) if entry is not None and entry.kind is kind)
    assert index.keys_of(entry) == {KEY}


def test_a_pod_seen_before_its_job_leads_there_by_the_label() -> None:
    index = Index()
    index.put(FINE_TUNE_JOB, fine_tune_job(), watched=True)
    assert index.keys_of(index.put(POD, pod(), watched=True)) == {KEY}


def test_a_stranger_leads_nowhere() -> None:
    index = full()
    assert not index.keys_of(index.put(JOB, batch_job("theirs", uid="b9", owner="x", label=None), watched=True))


def test_a_child_whose_owner_was_taken_off_still_leads_to_the_job() -> None:
    index = full()
    entry = index.put(JOB, batch_job(owner=None, version=2), watched=True)
    assert index.keys_of(entry) == {KEY}
    assert entry.controller is None


def test_a_child_given_to_another_job_leaves_the_first() -> None:
    index = full()
    index.put(FINE_TUNE_JOB, fine_tune_job("other", uid="j2"), watched=True)
    index.put(JOB, batch_job(owner="j2", label="j2", version=2), watched=True)
    assert "ft-support-1" in names(index, "j2")
    assert "ft-support-1" not in names(index, "j1")


def test_what_is_dropped_is_forgotten_whole() -> None:
    index = full()
    for uid in ("p1", "b1", "j1"):
        index.drop(uid)
    assert len(index) == 0
    assert index.job(KEY) is None
    assert names(index) == []


def test_the_newer_body_stays_whoever_brings_it() -> None:
    index = full()
    index.put(FINE_TUNE_JOB, fine_tune_job(version=7, status={"phase": "Running"}), watched=False)
    entry = index.put(FINE_TUNE_JOB, fine_tune_job(version=5, status={"phase": "Pending"}), watched=True)
    assert entry.body is not None
    assert whole(entry.body)["status"] == {"phase": "Running"}
    assert (entry.version, entry.delivered) == (7, 5)


def test_metadata_of_a_newer_version_takes_the_body_away() -> None:
    index = full()
    assert index.note(JOB, batch_job(version=1)).body is not None
    assert index.note(JOB, batch_job(version=2)).body is None


def test_a_job_made_again_under_its_name_is_the_newer_one_in_any_order() -> None:
    for versions in ((1, 9), (9, 1)):
        index = Index()
        for version in versions:
            index.put(FINE_TUNE_JOB, fine_tune_job(uid=f"j{version}", version=version), watched=True)
        index.drop("j1")
        job = index.job(KEY)
        assert job is not None and job.uid == "j9"


def test_a_finished_job_and_its_children_keep_no_body() -> None:
    index = full()
    index.put(FINE_TUNE_JOB, fine_tune_job(version=2, status=finished()), watched=True)
    late = index.put(POD, pod("late", uid="p2"), watched=True)
    assert index.settled(KEY)
    assert late.body is None
    assert [entry.body for entry in index.children("j1")] == [None] * 3


@pytest.mark.parametrize(
    ("settled", "job"),
    [
        pytest.param(True, fine_tune_job(status=finished()), id="finished"),
        pytest.param(False, fine_tune_job(status=finished(), annotations={c.READ_ANNOTATION: REQUEST}), id="asked for what it left"),
        pytest.param(
            True,
            fine_tune_job(status={**finished(), "lastRead": {"id": "1a2b3c4d"}}, annotations={c.READ_ANNOTATION: REQUEST}),
            id="asked and answered",
        ),
        pytest.param(
            False,
            fine_tune_job(status={**finished(), "lastRead": {"id": "00000000"}}, annotations={c.READ_ANNOTATION: REQUEST}),
            id="asked anew",
        ),
        pytest.param(False, fine_tune_job(), id="new"),
        pytest.param(False, fine_tune_job(status={"observedGeneration": 1, "conditions": []}), id="running"),
        pytest.param(False, fine_tune_job(status=finished(generation=0)), id="edited after its end"),
        pytest.param(False, fine_tune_job(status=finished(), ttlSecondsAfterFinished=60), id="to be deleted by itself"),
        pytest.param(
            False, fine_tune_job(status={**finished(), "conditions": [{"type": "Finished", "status": "False"}]}), id="not finished"
        ),
    ],
)
def test_settled(settled: bool, job: dict[str, object]) -> None:
    assert is_settled(job) is settled


@pytest.mark.parametrize(
    ("live", "kind", "child"),
    [
        pytest.param(True, JOB, batch_job(), id="job at work"),
        pytest.param(False, JOB, batch_job(status={"conditions": [{"type": "Complete", "status": "True"}]}), id="job complete"),
        pytest.param(False, JOB, batch_job(status={"conditions": [{"type": "Failed", "status": "True"}]}), id="job failed"),
        pytest.param(True, JOB, batch_job(status={"conditions": [{"type": "FailureTarget", "status": "True"}]}), id="job about to fail"),
        pytest.param(False, JOB, batch_job(terminating=True), id="job terminating"),
        pytest.param(False, JOB, batch_job(READER), id="job that reads for a user"),
        pytest.param(False, POD, pod(f"{READER}-x7k2p", status={"phase": "Running"}), id="pod that reads for a user"),
        pytest.param(True, POD, pod(status={"phase": "Running"}), id="pod at work"),
        pytest.param(True, POD, pod(status={"phase": "Pending"}), id="pod pending"),
        pytest.param(False, POD, pod(status={"phase": "Failed"}), id="pod failed"),
    ],
)
def test_live(live: bool, kind: object, child: dict[str, object]) -> None:
    assert is_live(kind, child) is live  # type: ignore[arg-type]


def test_a_body_lacks_what_is_heavy_and_has_the_rest() -> None:
    heavy = {c.TRAINER_CONFIG_ANNOTATION: "x" * 100_000, c.RUNTIME_SNAPSHOT_ANNOTATION: "kept"}
    manifest = batch_job(annotations=heavy, managed_fields=True)
    manifest["spec"] = {"suspend": True, "template": {"metadata": {"annotations": heavy}, "spec": {"containers": []}}}
    body = slim(manifest)
    assert len(body) < 1000
    found = whole(body)
    assert found["metadata"]["annotations"] == {c.RUNTIME_SNAPSHOT_ANNOTATION: "kept"}
    assert "managedFields" not in found["metadata"]
    assert found["spec"] == {"suspend": True}
    assert found["kind"] == "Job"
