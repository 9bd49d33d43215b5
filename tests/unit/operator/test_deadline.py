"""The deadline counts running time, over all attempts; the time to live counts from the end."""

from __future__ import annotations

import pytest

from tests.unit.operator.worlds import World, job, published


def test_running_time_is_counted_and_nothing_else() -> None:
    world = World(job(spec__activeDeadlineSeconds=100))
    world.settle(1)
    world.settle(500)
    first = world.run()
    world.settle(1)
    assert world.requeue == pytest.approx(99, abs=1)
    world.seconds += 49
    world.end(first, 1)
    world.settle()
    world.settle(300)
    second = world.run()
    world.settle()
    world.settle(49)
    assert world.status["phase"] == "Running"
    world.settle(2)
    assert "deletionTimestamp" in world.jobs[world.newest]["metadata"]
    assert world.condition("Failed")[0] == "False", "it still saves"
    world.gone(world.newest, second)
    world.settle(5)
    assert world.status["failure"]["reason"] == "DeadlineExceeded"
    assert world.condition("Stalled") == ("True", "DeadlineExceeded")


def test_a_later_deadline_is_taken() -> None:
    world = World(job(spec__activeDeadlineSeconds=100))
    world.settle(1)
    world.run()
    world.settle(90)
    world.job["spec"]["activeDeadlineSeconds"] = 200
    world.settle(20)
    assert world.status["phase"] == "Running"


def test_a_job_that_ends_in_its_last_second_is_done() -> None:
    world = World(job(spec__activeDeadlineSeconds=100))
    world.settle(1)
    name = world.run()
    world.settle(1)
    world.seconds += 100
    world.end(name, 0, published())
    world.settle()
    assert world.status["phase"] == "Succeeded"


def finished(**edits: object) -> World:
    world = World(job(**edits))
    world.settle(1)
    name = world.run()
    world.settle(1)
    world.end(name, 0, published())
    world.settle(1)
    return world


def test_a_finished_job_is_deleted_after_its_time_to_live() -> None:
    world = finished(spec__ttlSecondsAfterFinished=60)
    assert world.requeue == pytest.approx(60, abs=1)
    world.step(59)
    assert "deletionTimestamp" not in world.job["metadata"]
    world.step(2)
    assert "deletionTimestamp" in world.job["metadata"]
    assert not world.step(1).actions


def test_a_finished_job_is_left_alone() -> None:
    world = finished()
    written = len(world.statuses)
    for _ in range(3):
        assert world.step(600).requeue_after is None
    world.gone(*world.jobs, *list(world.pods))
    world.step(600)
    assert len(world.statuses) == written


def test_a_change_after_the_end_is_only_noted() -> None:
    world = finished()
    world.job["metadata"]["generation"] = 2
    world.job["spec"]["suspend"] = True
    world.settle(1)
    assert world.status["observedGeneration"] == 2
    assert world.status["phase"] == "Succeeded"


def test_a_job_that_is_being_deleted_gets_nothing() -> None:
    world = World()
    world.job["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    decision = world.step(1)
    assert (decision.actions, decision.status, decision.needs) == ((), None, frozenset())
