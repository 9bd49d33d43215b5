"""The life of a job, from its creation to its end, as decisions in a small world."""

from __future__ import annotations

import pytest

from tests.unit.operator.worlds import World, attempts, pages, published, runtime, two_segments


def test_the_shortest_life_is_a_job_and_two_statuses() -> None:
    world = World()
    world.step()
    assert world.created == ["ft-example-0a1b2c3d-1-1"]
    assert world.statuses == []
    world.step(1)
    name = world.run()
    world.settle(1)
    assert world.condition("Accepted") == ("True", "Accepted")
    assert world.condition("Running") == ("True", "Training")
    world.seconds += 59
    world.end(name, 0, published())
    world.settle()
    assert len(world.statuses) == 2
    assert len(world.created) == 1
    assert world.status["phase"] == "Succeeded"
    assert world.condition("Complete") == ("True", "Succeeded")
    assert world.status["artifacts"][0]["kind"] == "adapter"
    assert world.status["usage"] == {"gpuSeconds": 60.0, "runningSeconds": 60.0, "gpuSecondsLost": 0.0}
    assert attempts(world) == [(1, "Succeeded")]


def test_segments_follow_each_other_and_the_report_is_the_last() -> None:
    world = World(two_segments(), runtime(prepare="ownPod"))
    for number in range(3):
        world.settle(1)
        assert world.newest == f"ft-example-0a1b2c3d-{number}-1"
        name = world.run()
        world.settle(2)
        assert world.status["phase"] == ("Preparing" if number == 0 else "Running")
        world.end(name, 0, published(truncated=number == 2))
    world.settle(1)
    assert world.newest == "ft-example-0a1b2c3d-report-1"
    name = world.run()
    whole = published(evaluation=[{"suite": "s", "metric": "loss", "baseline": 2.0, "stages": [{"stage": "task", "value": 1.5}]}])
    ended = [{"name": f"page-{page}", "state": {"terminated": {"exitCode": 0, "message": text}}} for page, text in enumerate(pages(whole))]
    world.end(name, 0)
    world.pods[name]["status"]["containerStatuses"] = ended
    world.settle(5)
    assert world.status["phase"] == "Succeeded"
    assert world.status["evaluation"][0]["suite"] == "s"
    assert [stage["phase"] for stage in world.status["stages"]] == ["Succeeded", "Succeeded"]
    assert [each["segment"] for each in world.status["attempts"]] == ["prepare", "domain", "task", "report"]


@pytest.mark.parametrize("segments", [1, 2])
def test_a_segment_is_done_when_its_job_says_so(segments: int) -> None:
    """A pod that succeeded is still to be counted by the Job's controller: until then its Job is at work."""
    world = World(two_segments() if segments == 2 else None)
    world.settle(1)
    name = world.run()
    world.settle(1)
    world.end(name, 0, published(), job_ends=False)
    world.settle(10)
    assert len(world.created) == 1
    assert world.condition("Finished")[0] == "False"
    world.end(name, 0, published())
    world.settle(1)
    assert len(world.created) == segments
    assert (world.status["phase"] == "Succeeded") is (segments == 1)
