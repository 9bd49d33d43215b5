"""Which keys an event puts into the queue, and in which lane."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sized
from itertools import islice

import pytest

from finetune_operator.follow import LONGEST_BACKOFF
from finetune_operator.handlers import Intake, NoMemories, kopf_settings
from finetune_operator.index import Index
from finetune_operator.kinds import FINE_TUNE_JOB, JOB, POD
from finetune_operator.model import Key
from finetune_operator.workqueue import WorkQueue
from tests.unit.machinery.objects import batch_job, fine_tune_job, finished, pod

KEY, OTHER = Key("team-a", "support"), Key("team-a", "other")
RUNNING = {"observedGeneration": 1, "conditions": [{"type": "Running", "status": "True"}]}
DONE = {"conditions": [{"type": "Complete", "status": "True"}]}


def scene() -> tuple[Intake, Index, WorkQueue[Key]]:
    index, queue = Index(), WorkQueue[Key](clock=lambda: 0.0)
    return Intake(index, queue), index, queue


def keys(queue: WorkQueue[Key]) -> list[Key]:
    found = []
    while (key := queue.pop()) is not None:
        found.append(key)
        queue.done(key)
    return found


def test_the_children_of_running_jobs_are_no_new_jobs() -> None:
    intake, _, queue = scene()
    intake.deliver(FINE_TUNE_JOB, None, fine_tune_job(status=RUNNING))
    keys(queue)
    intake.deliver(FINE_TUNE_JOB, "ADDED", fine_tune_job("other", uid="j2"))
    intake.deliver(FINE_TUNE_JOB, "ADDED", fine_tune_job("third", uid="j3"))
    intake.deliver(JOB, "ADDED", batch_job())
    assert keys(queue) == [OTHER, KEY, Key("team-a", "third")]


def test_a_change_of_a_running_job_is_no_new_job() -> None:
    intake, _, queue = scene()
    intake.deliver(FINE_TUNE_JOB, "ADDED", fine_tune_job("other", uid="j2"))
    intake.deliver(FINE_TUNE_JOB, "MODIFIED", fine_tune_job(status=RUNNING, suspend=True))
    assert keys(queue) == [KEY, OTHER]


def test_a_deleted_child_has_its_job_looked_at() -> None:
    intake, index, queue = scene()
    intake.deliver(FINE_TUNE_JOB, None, fine_tune_job())
    intake.deliver(JOB, None, batch_job())
    keys(queue)
    intake.deliver(JOB, "DELETED", batch_job(version=2))
    assert keys(queue) == [KEY]
    assert index.get("b1") is None


def test_a_deleted_pod_leads_to_its_job_through_the_job_between() -> None:
    intake, _, queue = scene()
    intake.deliver(FINE_TUNE_JOB, None, fine_tune_job())
    intake.deliver(JOB, None, batch_job())
    intake.deliver(POD, None, pod(label=None))
    keys(queue)
    intake.deliver(POD, "DELETED", pod(label=None, version=2))
    assert keys(queue) == [KEY]


def test_a_deleted_job_is_forgotten_and_not_looked_at() -> None:
    intake, index, queue = scene()
    intake.deliver(FINE_TUNE_JOB, None, fine_tune_job())
    keys(queue)
    intake.deliver(FINE_TUNE_JOB, "DELETED", fine_tune_job(version=2))
    assert keys(queue) == []
    assert index.job(KEY) is None


def test_nothing_of_a_finished_job_is_looked_at() -> None:
    intake, _, queue = scene()
    for change, kind, manifest in (
        (None, FINE_TUNE_JOB, fine_tune_job(status=finished())),
        (None, JOB, batch_job(status=DONE)),
        ("MODIFIED", POD, pod(status={"phase": "Succeeded"})),
        ("DELETED", POD, pod(status={"phase": "Succeeded"})),
        ("DELETED", JOB, batch_job(status=DONE)),
    ):
        intake.deliver(kind, change, manifest)
    assert keys(queue) == []


def test_a_child_of_a_finished_job_that_is_at_work_is_looked_at() -> None:
    intake, _, queue = scene()
    intake.deliver(FINE_TUNE_JOB, None, fine_tune_job(status=finished()))
    intake.deliver(POD, "ADDED", pod(status={"phase": "Running"}))
    assert keys(queue) == [KEY]


def test_what_reads_of_a_finished_job_for_a_user_has_nobody_look_at_it() -> None:
    intake, index, queue = scene()
    name = "ft-support-0a1b2c3d-read-1a2b3c4d"
    intake.deliver(FINE_TUNE_JOB, None, fine_tune_job(status=finished()))
    intake.deliver(JOB, "ADDED", batch_job(name))
    intake.deliver(POD, "ADDED", pod(f"{name}-x7k2p", status={"phase": "Running"}))
    intake.deliver(JOB, "DELETED", batch_job(name, version=2))
    assert keys(queue) == []
    assert index.at_rest(KEY)


def test_a_child_listed_before_its_finished_job_costs_nothing() -> None:
    intake, index, queue = scene()
    index.note(FINE_TUNE_JOB, fine_tune_job())
    intake.deliver(JOB, None, batch_job(status=DONE))
    intake.deliver(FINE_TUNE_JOB, None, fine_tune_job(status=finished()))
    assert keys(queue) == []


def test_a_child_listed_before_its_running_job_is_looked_at_with_it() -> None:
    intake, index, queue = scene()
    index.note(FINE_TUNE_JOB, fine_tune_job())
    intake.deliver(JOB, None, batch_job())
    intake.deliver(FINE_TUNE_JOB, None, fine_tune_job(status=RUNNING))
    assert keys(queue) == [KEY]


def test_a_child_that_is_noted_has_its_running_job_looked_at_and_is_lacked_no_more() -> None:
    intake, index, queue = scene()
    intake.deliver(FINE_TUNE_JOB, None, fine_tune_job(status=RUNNING))
    keys(queue)
    intake.note(JOB, batch_job(version=3))
    assert keys(queue) == [KEY]
    entry = index.get("b1")
    assert entry is not None
    assert (entry.delivered, entry.body) == (3, None)


def test_a_child_that_is_noted_costs_a_finished_job_nothing() -> None:
    intake, index, queue = scene()
    intake.deliver(FINE_TUNE_JOB, None, fine_tune_job(status=finished()))
    intake.note(POD, pod())
    assert keys(queue) == []
    assert index.at_rest(KEY)


def test_what_our_own_status_write_brings_back_has_nobody_look() -> None:
    intake, index, queue = scene()
    intake.deliver(FINE_TUNE_JOB, "ADDED", fine_tune_job(version=1))
    keys(queue)
    index.wrote(fine_tune_job(version=3, status=RUNNING))
    intake.deliver(FINE_TUNE_JOB, "MODIFIED", fine_tune_job(version=2))
    intake.deliver(FINE_TUNE_JOB, "MODIFIED", fine_tune_job(version=3, status=RUNNING))
    assert keys(queue) == []
    intake.deliver(FINE_TUNE_JOB, "MODIFIED", fine_tune_job(version=4, status=RUNNING, suspend=True))
    assert keys(queue) == [KEY]


def test_a_change_that_only_a_request_for_another_job_has_shown_is_looked_at() -> None:
    intake, index, queue = scene()
    intake.deliver(FINE_TUNE_JOB, "ADDED", fine_tune_job(version=1))
    keys(queue)
    index.put(FINE_TUNE_JOB, fine_tune_job(version=2, suspend=True), watched=False)
    intake.deliver(FINE_TUNE_JOB, "MODIFIED", fine_tune_job(version=2, suspend=True))
    assert keys(queue) == [KEY]


def test_a_child_that_was_just_made_is_not_looked_at_when_its_watch_tells_of_it() -> None:
    intake, index, queue = scene()
    intake.deliver(FINE_TUNE_JOB, "ADDED", fine_tune_job())
    keys(queue)
    index.put(JOB, batch_job(version=5), watched=False)
    intake.deliver(JOB, "ADDED", batch_job(version=5))
    assert keys(queue) == []


@pytest.mark.parametrize(
    ("status", "looks"),
    [
        ({"active": 1, "ready": 1, "terminating": 0, "uncountedTerminatedPods": {"succeeded": ["p1"]}}, False),
        ({"startTime": "2026-11-22T12:00:00Z"}, True),
        ({"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}]}, True),
    ],
    ids=["counts", "start", "condition"],
)
def test_a_change_that_no_decision_reads_has_nobody_look(status: dict[str, object], looks: bool) -> None:
    intake, _, queue = scene()
    intake.deliver(FINE_TUNE_JOB, "ADDED", fine_tune_job())
    intake.deliver(JOB, "ADDED", batch_job(status={}))
    keys(queue)
    intake.deliver(JOB, "MODIFIED", batch_job(version=2, status=status))
    assert keys(queue) == ([KEY] if looks else [])


def test_a_list_has_everything_looked_at() -> None:
    intake, _, queue = scene()
    intake.deliver(FINE_TUNE_JOB, "ADDED", fine_tune_job())
    intake.deliver(JOB, "ADDED", batch_job())
    keys(queue)
    intake.deliver(JOB, None, batch_job())
    assert keys(queue) == [KEY]


def test_a_child_of_two_is_looked_at_for_both() -> None:
    intake, index, queue = scene()
    intake.deliver(FINE_TUNE_JOB, "ADDED", fine_tune_job())
    intake.deliver(FINE_TUNE_JOB, "ADDED", fine_tune_job("other", uid="j2"))
    keys(queue)
    index.put(JOB, batch_job(label="j2", version=5), watched=False)
    intake.deliver(JOB, "ADDED", batch_job(label="j2", version=5))
    assert sorted(keys(queue)) == [OTHER, KEY]


def test_an_event_about_a_stranger_is_nothing() -> None:
    intake, _, queue = scene()
    intake.deliver(JOB, "ADDED", batch_job(owner="x", label=None))
    assert keys(queue) == []


def test_a_watch_is_tried_again_without_end_and_each_from_the_first_back_off() -> None:
    backoffs = kopf_settings().networking.error_backoffs
    assert isinstance(backoffs, Iterable) and not isinstance(backoffs, Sized)
    first = list(islice(backoffs, 10_000))
    assert first[:2] == [1, 1] and first[-1] == max(first) == LONGEST_BACKOFF
    assert list(islice(backoffs, 20)) == first[:20]


def test_kopf_keeps_nothing_of_an_object_that_it_delivered() -> None:
    memories = NoMemories()
    asyncio.run(memories.recall({"metadata": {"uid": "j1"}}, noticed_by_listing=True))
    assert list(memories.iter_all_memories()) == []
