"""What a job says that it waits for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.worlds import World, at, result


def message(world: World) -> str:
    return str(next(each["message"] for each in world.status["conditions"] if each["type"] == "Running"))


def unscheduled(text: str, reason: str = "Unschedulable") -> dict[str, Any]:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason, "message": text}]}


def container(reason: str, text: str = "") -> dict[str, Any]:
    return {"containerStatuses": [{"name": "trainer", "image": "trainer", "state": {"waiting": {"reason": reason, "message": text}}}]}


def gpu_node(amount: str | None) -> dict[str, Any]:
    return {"status": {"allocatable": {"cpu": "4", **({"nvidia.com/gpu": amount} if amount else {})}}}


PULL = 'rpc error: code = NotFound desc = failed to pull and unpack image "r/t": not found'


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (unscheduled("0/3 nodes are available: 3 Insufficient cpu."), "Unschedulable", "no node takes the pod: 0/3 nodes"),
        (unscheduled('persistentvolumeclaim "runs" not found.'), "ClaimMissing", "claim runs is not there"),
        (
            unscheduled('error getting PVC "a/runs": could not find v1.PersistentVolumeClaim "a/runs"'),
            "ClaimMissing",
            "claim runs is not there",
        ),
        (unscheduled('persistentvolumeclaim "runs" is being deleted'), "ClaimTerminating", "when it is gone, make it again"),
        (unscheduled("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."), "ClaimUnbound", "not bound"),
        (unscheduled("0/2 nodes are available: 2 node(s) had volume node affinity conflict."), "ClaimElsewhere", "bound to a node"),
        (unscheduled("waits", "SchedulingGated"), "Queued", "scheduling gate"),
        (container("ErrImagePull", PULL), "ImageUnavailable", f"image trainer can't be pulled: {PULL}"),
        (container("ImagePullBackOff", f'Back-off pulling image "r/t": ErrImagePull: {PULL}'), "ImageUnavailable", PULL),
        (container("InvalidImageName"), "ImageUnavailable", "image trainer can't be pulled"),
        (container("CreateContainerConfigError", 'secret "hub" not found'), "SecretMissing", "Secret hub is not there"),
        (container("CreateContainerError", "no runc"), "ContainerRefused", "no runc"),
    ],
)
def test_a_pod_waits_for(status: dict[str, Any], reason: str, words: str) -> None:
    world = World()
    world.settle(1)
    world.pod(**status)
    world.settle(1)
    assert world.statuses == [], "what a new pod lacks often comes a moment later"
    world.settle(5)
    assert world.condition("Running") == ("False", reason)
    assert words in message(world)
    assert world.condition("Reconciling") == ("True", reason)
    assert world.condition("Stalled")[0] == "False"
    assert world.requeue == 30


def test_the_words_of_a_failed_pull_are_told_once() -> None:
    """The kubelet changes between two reasons with each try."""
    world = World()
    world.settle(1)
    name = world.pod(**container("ErrImagePull", PULL))
    world.settle(6)
    for _ in range(3):
        world.pods[name]["status"] |= container("ImagePullBackOff", f'Back-off pulling image "r/t": ErrImagePull: {PULL}')
        world.settle(10)
        world.pods[name]["status"] |= container("ErrImagePull", PULL)
        world.settle(10)
    assert len(world.statuses) == 1


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([gpu_node(None)] * 3, "none of the 3 nodes has nvidia.com/gpu"),
        ([gpu_node("8"), gpu_node("0"), gpu_node("2")], "2 of 3 nodes have nvidia.com/gpu (10 in all)"),
        ([gpu_node("8")], "wait until others end, or ask for fewer: resources.gpus of the stage, or gpus of the runtime"),
    ],
)
def test_no_gpu_says_which_resource_and_on_how_many_nodes(nodes: list[Any], words: str) -> None:
    world = World()
    world.more["nodes"] = tuple(nodes)
    world.settle(1)
    world.pod(**unscheduled("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."))
    world.settle(6)
    assert world.condition("Running") == ("False", "GpuUnavailable")
    assert words in message(world)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('pods "x" is forbidden: exceeded quota: compute, requested: requests.nvidia.com/gpu=1', "QuotaExceeded"),
        ('pods "x" is forbidden: maximum cpu usage per Container is 1, but limit is 2', "LimitRange"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": seccompProfile', "PodRefused"),
        ('pods "x" is forbidden: unable to create new content in namespace because it is being terminated', "NamespaceTerminating"),
        ("something new", "PodRefused"),
    ],
)
def test_a_job_without_a_pod_says_why_from_its_events(text: str, reason: str) -> None:
    assert told_without_a_pod(text).condition("Running") == ("False", reason)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('pods "x" is forbidden: failed quota: all: must specify limits.cpu for: train', "have the runtime's resources say it"),
        ('pods "x" is forbidden: pod rejected: RuntimeClass "fast" not found', "have its runtimeClassName corrected"),
        ('pods "x" is forbidden: no PriorityClass with name high was found', "have its priorityClassName corrected"),
        ("something new", "have the runtime changed, or what refuses it"),
    ],
)
def test_a_refused_pod_says_what_to_do(text: str, hint: str) -> None:
    said = message(told_without_a_pod(text))
    assert hint in said and text in said


def told_without_a_pod(text: str) -> World:
    world = World()
    world.settle(1)
    uid = world.jobs[world.newest]["metadata"]["uid"]
    world.more["events"] = (
        {"involvedObject": {"uid": "other"}, "reason": "FailedCreate", "message": "not ours"},
        {"involvedObject": {"uid": uid}, "reason": "FailedCreate", "message": text},
    )
    world.settle(3)
    assert "events" not in world.asked, "events are read only when it lasts"
    assert world.statuses == []
    world.settle(3)
    return world


QUOTA = 'pods "x" is forbidden: exceeded quota: compute, requested: requests.nvidia.com/gpu=1'


@pytest.mark.parametrize("gone", [False, True], ids=["the old pod is still there", "the old pod is gone"])
@pytest.mark.parametrize(
    ("seconds", "reason"), [(20, "QuotaExceeded"), (-5, "Starting")], ids=["refused since", "refused before the old pod was made"]
)
def test_a_pod_that_is_not_replaced_says_why_from_the_events(seconds: float, reason: str, gone: bool) -> None:
    world = World()
    world.settle(10)
    name = world.run()
    world.settle(20)
    uid = world.jobs[world.newest]["metadata"]["uid"]
    event = {"involvedObject": {"uid": uid}, "reason": "FailedCreate", "message": QUOTA, "lastTimestamp": at(10 + seconds)}
    world.more["events"] = (event,) if not gone or seconds > 0 else ()
    world.pods[name]["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
    world.end(name, 75, result("Stopped", 75, reason="Stopped"), job_ends=False)
    world.settle()
    if gone:
        world.gone(name)
    world.settle(12)
    assert "events" not in world.asked, "a Job replaces its pods after ten seconds"
    assert (world.requeue or 0) >= 1, "it waits, and does not spin"
    world.settle(4)
    assert world.condition("Running") == ("False", reason)
    assert world.requeue == 30


@pytest.mark.parametrize(
    ("reason", "text", "expected"),
    [
        ("FailedMount", 'MountVolume.SetUp failed for volume "secret-0" : secret "hub-token" not found', "SecretMissing"),
        ("FailedMount", 'MountVolume.SetUp failed for volume "secret-0" : references non-existent secret key: token', "SecretKeyMissing"),
        ("FailedAttachVolume", "Multi-Attach error for volume pvc-1: Volume is already used by pod(s) x", "ClaimElsewhere"),
        ("FailedMount", "something else", "Starting"),
    ],
)
def test_a_volume_that_does_not_come_says_why_from_the_events(reason: str, text: str, expected: str) -> None:
    world = World()
    world.settle(1)
    name = world.pod(startTime=at(1), **container("ContainerCreating"))
    world.more["events"] = ({"involvedObject": {"uid": f"uid-of-{name}"}, "reason": reason, "message": text},)
    world.settle(3)
    assert world.statuses == []
    world.settle(4)
    assert world.condition("Running") == ("False", expected)


def test_a_slow_start_is_told_after_five_seconds() -> None:
    world = World()
    world.settle(1)
    world.pod()
    world.settle(3)
    assert world.statuses == []
    assert 0 < (world.requeue or 0) <= 5
    world.settle(3)
    assert world.condition("Running") == ("False", "Starting")
    assert world.status["phase"] == "Pending"
    assert len(world.statuses) == 1


def test_between_a_containers_end_and_its_pods_nothing_is_told() -> None:
    world = World()
    world.settle(1)
    name = world.run()
    world.settle(60)
    before = len(world.statuses)
    world.end(name, 0, job_ends=False)
    world.pods[name]["status"]["phase"] = "Running"
    world.settle(1)
    assert world.condition("Running") == ("True", "Training")
    assert len(world.statuses) == before
