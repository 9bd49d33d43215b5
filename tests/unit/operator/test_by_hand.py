"""Children that somebody deletes, edits, relabels or orphans, in each phase; a status that somebody else wrote; clocks that disagree."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api import constants as c
from tests.unit.operator.worlds import UID, World, at, attempts, pages, published, runtime, spent, two_segments

PHASES = ["Pending", "Preparing", "Queued", "Starting", "Running", "Suspending", "Reporting", "BackOff", "Failed", "Complete"]
"""Of the Job that stands, in the order of a life: no pod yet, one that prepares, no quota yet, a pod that starts, one that trains, one that
saves, one that reads the result, and three that are over: it is repeated after its back-off, has just failed, has just ended well."""
RAN = {"Preparing", "Running", "Reporting", "Failed", "Complete"}
"""Where a container had begun, and its end is not on record."""
WITH_POD = ["Preparing", "Starting", "Running", "Suspending", "Reporting"]
AT_WORK = {"Pending", "Preparing", "Queued", "Starting", "Running"}
SPECS = {"Preparing": {"prepare": "ownPod"}, "Queued": {"queueName": "q"}}


def world_in(phase: str) -> tuple[World, str]:
    """A job with two segments in this phase, and the name of the pod: empty where there is none."""
    world = World(two_segments(), runtime(**SPECS.get(phase, {})))
    world.settle(1)
    if phase in ("Pending", "Queued"):
        return world, ""
    name = world.run() if phase != "Starting" else world.pod()
    world.settle(1)
    if phase in ("BackOff", "Failed"):
        world.end(name, 1)
    if phase == "BackOff":
        world.settle(1)
        assert world.condition("Running") == ("False", "BackOff")
    if phase == "Complete":
        world.end(name, 0, published())
    if phase == "Suspending":
        world.job["spec"]["suspend"] = True
        world.settle(1)
    if phase == "Reporting":
        world.end(name, 0)
        world.settle(1)
        world.end(world.run(), 0, published(truncated=True))
        world.settle(1)
        name = world.run(container="page-0")
        world.settle(1)
    if phase not in ("Failed", "Complete", "Starting", "BackOff"):
        assert world.status["phase"] == phase if phase != "Reporting" else world.condition("Running")[1] == "Reporting"
    return world, name


def report(world: World, name: str) -> None:
    """Let a report's pod tell the result."""
    world.end(name, 0)
    world.pods[name]["status"]["containerStatuses"] = [
        {"name": f"page-{page}", "state": {"terminated": {"exitCode": 0, "message": text, "startedAt": at(world.seconds)}}}
        for page, text in enumerate(pages(published()))
    ]


def finish(world: World) -> None:
    """Let every further pod succeed, a suspended job go on, and a queue have quota."""
    for _ in range(12):
        world.settle(20)
        if world.status.get("phase") in ("Succeeded", "Failed"):
            return
        world.job["spec"]["suspend"] = False
        for each in world.jobs.values():
            each["spec"]["suspend"] = False
        alive = [name for name, pod in world.pods.items() if pod["status"]["phase"] in ("Pending", "Running")]
        if alive and "-report-" in alive[-1]:
            report(world, alive[-1])
        elif alive:
            world.end(alive[-1], 0, published())
        elif any(not each["status"] for each in world.jobs.values()):
            world.run()


@pytest.mark.parametrize("phase", PHASES)
def test_a_job_deleted_by_hand(phase: str) -> None:
    world, name = world_in(phase)
    world.gone(world.newest, name)
    finish(world)
    assert world.status["phase"] == "Succeeded"
    assert sum(preemptions for _, preemptions in spent(world)) == (phase in RAN)


@pytest.mark.parametrize("phase", PHASES)
def test_a_job_orphaned_by_hand_is_deleted_first(phase: str) -> None:
    world, name = world_in(phase)
    orphan = world.jobs.pop(world.newest)
    orphan["metadata"]["ownerReferences"] = []
    world.orphans, made = [orphan], list(world.created)
    decision = world.step(1)
    going = "deletionTimestamp" in orphan["metadata"]
    assert [action.name for action in decision.actions] == ([] if going else [orphan["metadata"]["name"]])
    assert world.created == made, "nothing is made beside it"
    world.orphans = []
    world.gone(name)
    finish(world)
    assert world.status["phase"] == "Succeeded"


@pytest.mark.parametrize("phase", WITH_POD)
def test_a_pod_without_an_owner_is_deleted_first(phase: str) -> None:
    world, name = world_in(phase)
    world.pods[name]["metadata"]["ownerReferences"] = []
    decision = world.decide()
    deleted = [(action.kind, action.name) for action in decision.actions if not hasattr(action, "manifest")]
    assert deleted == ([] if phase == "Suspending" else [("Pod", name)]), "one that goes already needs no word"
    assert not [action for action in decision.actions if hasattr(action, "manifest")], "nothing is made beside it"
    world.gone(name, *([world.newest] if phase == "Suspending" else []))
    finish(world)
    assert world.status["phase"] == "Succeeded"


@pytest.mark.parametrize("phase", WITH_POD)
def test_a_pod_deleted_by_hand_is_replaced_by_its_job(phase: str) -> None:
    world, name = world_in(phase)
    made = list(world.created)
    world.gone(name)
    world.settle(1)
    assert world.created == made
    if phase == "Suspending":
        world.gone(world.newest)
    finish(world)
    assert world.status["phase"] == "Succeeded"
    assert sum(preemptions for _, preemptions in spent(world)) == (phase in RAN)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("labels", [{}, {c.MANAGED_LABEL: "true", c.JOB_UID_LABEL: "another"}], ids=["none", "another's"])
def test_a_job_relabelled_by_hand_is_replaced_while_it_works(phase: str, labels: dict[str, str]) -> None:
    world, name = world_in(phase)
    child = world.newest
    manifest = world.jobs[child]
    manifest["metadata"]["labels"] = labels
    world.settle(1)
    going = "deletionTimestamp" in manifest["metadata"]
    assert going is (phase in AT_WORK or phase == "Suspending")
    if going:
        world.gone(child, name)
    finish(world)
    assert world.status["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("edit", "replaced"),
    [
        ({"spec": {"suspend": True, "parallelism": 1}}, True),
        ({"spec": {"parallelism": 0}}, True),
        ({"labels": {}}, True),
        ({"labels": {c.MANAGED_LABEL: "true", c.JOB_UID_LABEL: "another"}}, True),
        ({"labels": {c.MANAGED_LABEL: "true", c.JOB_UID_LABEL: UID, c.SEGMENT_LABEL: "9", "team": "x"}}, False),
        ({"spec": {"parallelism": 1, "ttlSecondsAfterFinished": 1}}, False),
    ],
)
@pytest.mark.parametrize("queue", [False, True])
def test_a_job_edited_by_hand_is_replaced_unless_the_queue_may_do_so(edit: dict[str, Any], replaced: bool, queue: bool) -> None:
    world = World(None, runtime(**({"queueName": "q"} if queue else {})))
    world.settle(1)
    first = world.jobs[world.newest]
    first["spec"]["suspend"] = False
    name = world.run()
    world.settle(1)
    first["metadata"]["labels"] = edit.get("labels", first["metadata"]["labels"])
    first["spec"] |= edit.get("spec", {})
    world.settle(1)
    expected = replaced and not (queue and "spec" in edit)
    assert ("deletionTimestamp" in first["metadata"]) is expected
    if expected:
        world.gone(world.newest, name)
        world.settle(1)
        assert attempts(world) == [(1, "JobEdited")]
        assert spent(world) == [(0, 1)]


def test_of_two_jobs_at_one_segment_the_older_works_on() -> None:
    world, _ = world_in("Running")
    first = world.newest
    second = first[:-1] + "2"
    world.jobs[second] = {**world.jobs[first], "metadata": {**world.jobs[first]["metadata"], "name": second, "uid": "second"}}
    decision = world.step(1)
    assert [action.name for action in decision.actions] == [second]
    world.gone(second)
    finish(world)
    assert world.status["phase"] == "Succeeded"
    assert spent(world) == []


@pytest.mark.parametrize(
    "forged", [{}, {"phase": "Succeeded"}, {"conditions": [{"type": "Finished", "status": "True"}]}, {"attempts": [{"job": "x"}]}]
)
@pytest.mark.parametrize("phase", PHASES)
def test_a_status_written_by_somebody_else_is_derived_again(phase: str, forged: dict[str, Any]) -> None:
    world, _ = world_in(phase)
    world.settle(6)
    world.settle(6)
    before = world.status
    world.job["status"] = dict(forged)
    world.settle(1)
    world.settle(6)
    same = ("phase", "attempts", "budgets", "usage", "runtime", "stages")
    assert {name: world.status.get(name) for name in same} == {name: before.get(name) for name in same}


def test_a_finished_job_whose_status_was_wiped_tells_the_same_again() -> None:
    world, _ = world_in("Complete")
    finish(world)
    before = world.status
    world.job["status"] = {}
    world.settle(100)
    same = [name for name in before if name not in ("conditions",)]
    assert {name: world.status.get(name) for name in same} == {name: before[name] for name in same}


@pytest.mark.parametrize("hours", [-1, 1])
def test_an_hour_of_skew_makes_no_negative_times(hours: int) -> None:
    """The operator's clock is wrong; the cluster's times are right."""
    world = World(two_segments(spec__activeDeadlineSeconds=1800))
    world.settle(1)
    real = world.seconds
    world.seconds += 3600 * hours
    name = world.run(node="node-1")
    world.pods[name]["status"]["startTime"] = at(real)
    world.settle(1)
    assert world.condition("Running") == ("True", "Training")
    world.seconds += 60
    world.settle()
    world.end(name, 1, seconds=real + 60)
    world.settle()
    assert world.status["usage"] == {"gpuSeconds": 60.0, "runningSeconds": 60.0, "gpuSecondsLost": 0.0}
    assert world.condition("Failed")[0] == "False"
    world.settle(11)
    assert len(world.created) == 2, "a back-off is over after its seconds, whatever the nodes' clocks say"
    first = {each["type"]: each["lastTransitionTime"] for each in world.statuses[0]["conditions"]}
    world.seconds -= 7200
    world.job["spec"]["suspend"] = True
    world.settle()
    for each in world.status["conditions"]:
        assert each["lastTransitionTime"] >= first[each["type"]]


def run_on_a_node_that_is_off(hours: int, **edits: Any) -> tuple[World, str]:
    """A pod that waited for ten minutes and runs since a second, on a node whose clock is off."""
    world = World(two_segments(**edits), runtime())
    world.settle(1)
    name = world.pod(node=None)
    world.settle(600)
    pod = world.pods[name]
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(world.seconds)}
    pod["spec"] = {"nodeName": "node-1"}
    started = at(world.seconds + 3600 * hours)
    running = [{"name": "trainer", "state": {"running": {"startedAt": started}}}]
    pod["status"] = {"phase": "Running", "startTime": started, "conditions": [scheduled], "containerStatuses": running}
    world.settle(1)
    return world, name


@pytest.mark.parametrize("ended", ["vanished", "without a time", "seen", "seen first at its end"])
@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_a_node_whose_clock_is_an_hour_off_costs_what_it_ran(hours: int, ended: str) -> None:
    world, name = run_on_a_node_that_is_off(hours, spec__activeDeadlineSeconds=1800)
    if ended == "seen first at its end":
        world.job["status"] = {}
    world.seconds += 59
    if ended == "vanished":
        world.gone(world.newest, name)
    else:
        world.end(name, 1, seconds=world.seconds + 3600 * hours)
    if ended == "without a time":
        del world.pods[name]["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
    world.settle()
    assert world.status["usage"]["runningSeconds"] == pytest.approx(60, abs=1)
    assert world.status["usage"]["gpuSeconds"] == pytest.approx(60, abs=1)
    assert world.condition("Running") == ("False", "BackOff")
    made = len(world.created)
    world.settle(8)
    assert len(world.created) == made, "a back-off lasts its seconds, whatever the nodes' clocks say"
    world.settle(4)
    assert len(world.created) == made + 1
