"""Suspension and resumption, in every phase, with a queue and without."""

from __future__ import annotations

import pytest

from tests.unit.operator.worlds import World, at, attempts, job, published, result, runtime, spent


def suspend(world: World, value: bool = True) -> None:
    """Edit the job as a user does."""
    world.job["spec"]["suspend"] = value
    world.job["metadata"]["generation"] += 1


def running() -> tuple[World, str]:
    world = World()
    world.settle(1)
    name = world.run()
    world.settle(1)
    return world, name


@pytest.mark.parametrize(("heard", "reason"), [(True, "CheckpointVerified"), (False, "CheckpointUnconfirmed")])
def test_suspended_only_when_no_pod_is_left_and_resumed_without_a_charge(heard: bool, reason: str) -> None:
    world, name = running()
    first = world.newest
    suspend(world)
    world.settle(1)
    assert world.status["phase"] == "Suspending"
    assert world.condition("Suspended") == ("False", "Suspending")
    assert world.condition("Reconciling")[0] == "True"
    if heard:
        world.end(name, 75, result("Stopped", 75, reason="Stopped", step=9), job_ends=False)
        world.settle(1)
    world.gone(first)
    world.settle(1)
    if not heard:
        assert world.status["phase"] == "Suspending", "the pod is still there"
    world.gone(name)
    world.settle(1)
    assert world.status["phase"] == "Suspended"
    assert world.condition("Suspended") == ("True", reason)
    assert world.condition("Reconciling")[0] == "False"
    assert attempts(world) == [(1, "Suspended")]
    suspend(world, False)
    world.settle(100)
    assert world.created[-1].endswith("-1-2")
    assert world.condition("Suspended")[0] == "False"
    second = world.run()
    world.settle(1)
    world.end(second, 0, published())
    world.settle(1)
    assert world.status["phase"] == "Succeeded"
    assert spent(world) == []


def test_a_job_made_suspended_starts_nothing() -> None:
    world = World(job(spec__suspend=True))
    world.settle(1)
    assert world.created == []
    assert world.condition("Suspended") == ("True", "NotStarted")
    assert world.condition("Accepted")[0] == "True"
    suspend(world, False)
    world.settle(1)
    assert len(world.created) == 1


def test_resumed_while_it_stops_is_still_uncharged() -> None:
    world, name = running()
    suspend(world)
    world.settle(1)
    suspend(world, False)
    world.settle(1)
    assert len(world.created) == 1, "the pod is still there"
    world.gone(world.newest, name)
    world.settle(1)
    assert attempts(world)[0] == (1, "Suspended")
    assert len(world.created) == 2
    assert spent(world) == []


def test_a_job_that_ends_while_it_is_told_to_stop_is_done() -> None:
    world, name = running()
    suspend(world)
    world.end(name, 0, published())
    world.settle(1)
    assert world.status["phase"] == "Succeeded"


def test_suspended_while_it_backs_off_waits_for_nothing() -> None:
    world, name = running()
    world.end(name, 1)
    world.settle(1)
    suspend(world)
    world.settle(1)
    assert world.status["phase"] == "Suspended"
    suspend(world, False)
    world.settle(20)
    assert len(world.created) == 2


def test_a_queue_starts_the_job_and_the_user_suspends_it_by_deletion() -> None:
    world = World(None, runtime(queueName="team-queue"))
    world.settle(1)
    made = world.jobs[world.newest]
    assert made["spec"]["suspend"] is True
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"
    world.settle(10)
    assert world.status["phase"] == "Queued"
    assert world.status["summary"]["queue"] == "team-queue"
    made["spec"]["suspend"] = False
    made["status"]["startTime"] = at(world.seconds)
    name = world.run()
    world.settle(1)
    assert world.status["phase"] == "Running"
    suspend(world)
    world.settle(1)
    assert "deletionTimestamp" in made["metadata"]
    assert made["spec"]["suspend"] is False, "spec.suspend of the Job is the queue's alone"
    world.gone(world.newest, name)
    world.settle(1)
    assert world.status["phase"] == "Suspended"


@pytest.mark.parametrize("heard", [True, False])
def test_a_suspended_stage_says_so_and_keeps_what_it_had(heard: bool) -> None:
    world, name = running()
    world.job["status"]["stages"] = [{"name": "task", "phase": "Running", "metrics": {"loss": 0.9}}]
    suspend(world)
    world.settle(1)
    assert world.status["stages"] == [{"name": "task", "phase": "Suspending", "metrics": {"loss": 0.9}}]
    checkpoint = {"step": 9, "uri": "pvc://runs/x/checkpoint-00000009", "sha256": "a" * 64, "verified": True}
    if heard:
        told = {"status": {"name": "task", "phase": "Running", "attempts": 1, "startedAt": at(1), "checkpoint": checkpoint}, "steps": 9}
        world.end(name, 75, result("Stopped", 75, reason="Stopped", stage="task", step=9, stages=[told]), job_ends=False)
        world.settle(1)
    world.gone(world.newest, name)
    world.settle(1)
    known = {"attempts": 1, "startedAt": at(1), "checkpoint": checkpoint} if heard else {}
    assert world.status["stages"] == [{"name": "task", "phase": "Suspended", "metrics": {"loss": 0.9}, **known}]
    suspend(world, False)
    world.settle(1)
    world.run()
    world.settle(1)
    assert world.status["stages"] == [{"name": "task", "phase": "Running", "metrics": {"loss": 0.9}, **known}]


def test_what_prepare_said_of_stages_does_not_undo_what_came_after() -> None:
    """Its pod stays, and has seen no stage begin; the one that trained is gone."""
    world = World(job(), runtime(prepare="ownPod"))
    world.settle(1)
    untouched = [{"status": {"name": "task", "phase": "Pending"}, "steps": 0}]
    world.end(world.run(), 0, result(stages=untouched))
    world.settle(1)
    name = world.run()
    world.settle(1)
    suspend(world)
    world.settle(1)
    checkpoint = {"step": 9, "uri": "pvc://runs/x/checkpoint-00000009", "sha256": "a" * 64, "verified": True}
    told = {"status": {"name": "task", "phase": "Running", "attempts": 1, "startedAt": at(1), "checkpoint": checkpoint}, "steps": 9}
    world.end(name, 75, result("Stopped", 75, reason="Stopped", stage="task", step=9, stages=[told]), job_ends=False)
    world.settle(1)
    world.gone(world.newest, name)
    world.settle(1)
    known = {"attempts": 1, "startedAt": at(1), "checkpoint": checkpoint}
    assert world.status["stages"] == [{"name": "task", "phase": "Suspended", **known}]
    suspend(world, False)
    world.settle(1)
    world.run()
    world.settle(1)
    assert world.status["stages"] == [{"name": "task", "phase": "Running", **known}]


def test_what_has_not_begun_is_only_pending() -> None:
    world = World(job(spec__suspend=True))
    world.settle(1)
    assert world.status["stages"] == [{"name": "task", "phase": "Pending"}]


@pytest.mark.parametrize(("queue", "reason"), [(None, "JobEdited"), ("team-a", "QueuePreempted")])
def test_a_pod_lost_to_a_suspended_job_was_preempted_only_where_there_is_a_queue(queue: str | None, reason: str) -> None:
    world = World(job(), runtime(**({"queueName": queue} if queue else {})))
    world.settle(1)
    world.jobs[world.newest]["spec"]["suspend"] = False
    name = world.run()
    world.settle(1)
    world.jobs[world.newest]["spec"]["suspend"] = True
    world.gone(name)
    world.settle(1)
    assert attempts(world)[0] == (1, reason)
