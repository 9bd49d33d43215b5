"""What clusters do to pods: replaced without charge to the retry budget, under a cap of its own."""

from __future__ import annotations

from typing import Any

import pytest

from tests import builders
from tests.unit.operator.worlds import World, at, attempts, job, published, result, spent


def running() -> tuple[World, str]:
    """A world whose only pod runs, and is told in the status."""
    world = World()
    world.more["pod_nodes"] = {"node-1": node("boot-1")}
    world.settle(1)
    name = world.run()
    world.settle(1)
    return world, name


def node(boot_id: str, ready: str = "True", since: float = 0) -> dict[str, Any]:
    """A Node."""
    return {
        "metadata": {"name": "node-1"},
        "status": {"nodeInfo": {"bootID": boot_id}, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": at(since)}]},
    }


def disrupted(reason: str) -> dict[str, Any]:
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]}


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("EvictionByEvictionAPI", "Evicted"),
        ("PreemptionByScheduler", "Preempted"),
        ("DeletionByTaintManager", "Evicted"),
        ("DeletionByPodGC", "NodeLost"),
        ("TerminationByKubelet", "Evicted"),
    ],
)
def test_a_disrupted_pod_is_replaced_by_its_job(condition: str, reason: str) -> None:
    world, name = running()
    world.pods[name]["status"] |= disrupted(condition)
    world.end(name, 75, result("Stopped", 75, reason="Stopped"), job_ends=False)
    second = world.run()
    world.settle(1)
    assert attempts(world) == [(1, reason), (1, None)]
    assert spent(world) == [(0, 1)]
    assert len(world.created) == 1
    world.end(second, 0, published(resumedFromStep=40, stepsLost=3))
    world.settle(5)
    assert world.status["phase"] == "Succeeded"
    last = world.status["attempts"][-1]
    assert (last["resumedFromStep"], last["stepsLost"]) == (40, 3)


def test_a_pod_deleted_by_hand_saves_and_is_replaced() -> None:
    world, name = running()
    world.pods[name]["metadata"]["deletionTimestamp"] = at(30)
    world.end(name, 75, result("Stopped", 75, reason="Stopped", step=12), job_ends=False)
    world.settle(1)
    world.gone(name)
    world.run()
    world.settle(1)
    assert attempts(world) == [(1, "PodDeleted"), (1, None)]
    assert world.status["attempts"][0]["exitCode"] == 75


def test_a_pod_that_vanished_unseen_is_told_as_deleted() -> None:
    world, name = running()
    world.gone(name)
    world.run()
    world.settle(20)
    assert attempts(world) == [(1, "PodDeleted"), (1, None)]


def test_a_job_deleted_by_hand_is_followed_by_the_next() -> None:
    world, name = running()
    world.gone(world.newest, name)
    world.settle(5)
    assert attempts(world) == [(1, "JobDeleted")]
    world.step(11)
    assert world.created[-1].endswith("-1-2")
    assert spent(world) == [(0, 1)]


def test_a_pod_that_the_kubelet_did_not_admit_is_not_the_users_fault() -> None:
    world = World()
    world.settle(1)
    name = world.pod(phase="Failed", reason="UnexpectedAdmissionError", startTime=at(1))
    job_status = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": at(2)}]}
    world.jobs[world.newest]["status"] = job_status
    world.settle(1)
    assert attempts(world) == [(1, "NotAdmitted")]
    assert spent(world) == [(0, 1)]
    assert world.pods[name]["status"]["phase"] == "Failed"
    world.step(11)
    assert len(world.created) == 2


@pytest.mark.parametrize(("boot_id", "reason", "paid"), [("boot-2", "NodeRebooted", (0, 1)), ("boot-1", "UnknownExit", (1, 0))])
def test_a_restarted_node_is_known_by_its_boot_id(boot_id: str, reason: str, paid: tuple[int, int]) -> None:
    world, name = running()
    assert world.status["attempts"][0]["bootId"] == "boot-1"
    world.more["pod_nodes"] = {"node-1": node(boot_id)}
    world.end(name, 255, reason="Unknown")
    world.settle(1)
    assert attempts(world) == [(1, reason)]
    assert spent(world) == [paid]


def test_too_many_disruptions_end_the_job() -> None:
    world = World(job(spec__retry={"maxPreemptions": 2}))
    world.settle(1)
    for _ in range(3):
        name = world.run()
        world.settle(1)
        assert "deletionTimestamp" not in world.jobs[world.newest]["metadata"], "as many as are allowed are survived"
        world.pods[name]["status"] |= disrupted("EvictionByEvictionAPI")
        world.end(name, 75, job_ends=False)
    last = world.run()
    world.settle(1)
    assert "deletionTimestamp" in world.jobs[world.newest]["metadata"]
    assert world.condition("Failed")[0] == "False"
    world.gone(world.newest, last)
    world.settle(1)
    assert world.status["failure"]["reason"] == "TooManyDisruptions"
    assert world.status["phase"] == "Failed"


def silent(world: World, name: str, since: float) -> None:
    """The node's controller marks the pod of a node that says nothing more."""
    world.pods[name]["status"]["conditions"] = [{"type": "Ready", "status": "False", "reason": "NodeNotReady"}]
    world.more["pod_nodes"] = {"node-1": node("boot-1", "Unknown", since)}


def test_a_lost_node_is_given_up_after_its_time() -> None:
    world, name = running()
    silent(world, name, since=2)
    world.settle()
    assert world.condition("Running") == ("False", "NodeSilent")
    assert world.requeue == pytest.approx(300)
    decision = world.step(301)
    assert [(action.kind, action.name, action.grace_seconds) for action in decision.actions if hasattr(action, "uid")] == [
        ("Pod", name, 0),
        ("Job", world.newest, None),
    ]
    assert attempts(world) == [(1, "NodeLost")]
    assert not world.step(1).actions, "nothing is deleted twice"
    world.gone(world.newest, name)
    world.settle(1)
    assert world.created[-1].endswith("-1-2")
    world.run(node="node-2")
    world.settle(1)
    assert attempts(world) == [(1, "NodeLost"), (2, None)]
    assert spent(world) == [(0, 1)]


def test_a_node_that_speaks_again_keeps_its_pod() -> None:
    world, name = running()
    silent(world, name, since=2)
    world.settle(100)
    world.pods[name]["status"]["conditions"] = []
    world.more["pod_nodes"] = {"node-1": node("boot-1")}
    world.settle(300)
    assert world.condition("Running") == ("True", "Training")
    assert spent(world) == []


def test_a_pod_that_does_not_go_is_asked_about_its_node() -> None:
    world, name = running()
    world.pods[name]["metadata"]["deletionTimestamp"] = at(40)
    world.more["pod_nodes"] = {"node-1": node("boot-1", "Unknown", since=5)}
    world.settle(10)
    assert world.condition("Running")[1] == "Training"
    decision = world.step(400)
    assert len(decision.actions) == 2


def test_a_pod_on_a_node_that_is_gone_is_given_up_at_once() -> None:
    world, name = running()
    silent(world, name, since=2)
    world.more["pod_nodes"] = {"node-1": None}
    assert len(world.step(1).actions) == 2


def test_more_disruptions_than_the_list_holds_are_counted_once_each() -> None:
    world = World(job(spec__retry={"maxPreemptions": 200}))
    world.settle(1)
    for _ in range(70):
        name = world.run()
        world.step(1)
        world.pods[name]["status"] |= disrupted("EvictionByEvictionAPI")
        world.end(name, 75, job_ends=False)
        world.step(1)
    for _ in range(3):
        world.settle(10)
    assert spent(world) == [(0, 70)]
    assert len(attempts(world)) == 64
    assert world.status["usage"]["runningSeconds"] == 70.0


@pytest.mark.parametrize(
    ("first", "second", "lost"),
    [
        ({}, {"resumedFromStep": 40, "stepsLost": 10}, 12.0),
        ({}, {"stepsLost": 10}, 60.0),
        ({"resumedFromStep": 30}, {"resumedFromStep": 40, "stepsLost": 10}, 30.0),
        ({}, {"resumedFromStep": 40, "stepsLost": 0}, 0.0),
        ({}, {}, 0.0),
    ],
    ids=["since the checkpoint", "from the beginning", "after a resume", "nothing", "not told"],
)
def test_gpu_seconds_whose_work_was_done_again(first: dict[str, Any], second: dict[str, Any], lost: float) -> None:
    world = World(job(spec__stages=[builders.stage("task", data={"train": [{"uri": "pvc://data/a"}]}, resources={"gpus": 1})]))
    world.more["pod_nodes"] = {"node-1": node("boot-1")}
    world.settle(1)
    name = world.run()
    world.settle(60)
    world.end(name, 1, result("Failed", 1, reason="InternalError", step=50, **first))
    world.settle(1)
    world.settle(60)
    again = world.run()
    world.settle(30)
    world.end(again, 0, published(**second))
    world.settle(1)
    assert world.status["phase"] == "Succeeded"
    assert world.status["usage"] == {"gpuSeconds": 90.0, "runningSeconds": 90.0, "gpuSecondsLost": lost}
