"""What clusters do to pods, operators and nodes: every job ends in the weights of an undisturbed run, and its status tells what happened as it was."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from scripts.render_chart import NAMESPACE
from tests.cluster.api import Object
from tests.cluster.pods import await_value, evict, pod_path
from tests.node.jobs import EVERY, Job, manifest, processes, strike
from tests.node.platform import PATIENCE, VICTIM, Platform
from tests.node.reference import Expected

LONG = 2 * PATIENCE
Blow = Callable[[Job, Object], None]
UNHEARD = {"UnknownExit", "NodeLost", "Suspended"}


def deleted(job: Job, pod: Object) -> None:
    job.delete_pod(pod)


def evicted(job: Job, pod: Object) -> None:
    evict(job.platform.cluster.api, pod)


def killed(job: Job, pod: Object) -> None:
    strike(pod, signal.SIGKILL)


def drained(job: Job, pod: Object) -> None:
    """As before a node's maintenance: the operator has to go too, where it runs there."""
    kubectl, node = job.platform.cluster.kubectl, pod["spec"]["nodeName"]
    try:
        kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", f"--timeout={PATIENCE}s")
        assert job.next_trainer(pod)["spec"]["nodeName"] != node
    finally:
        kubectl("uncordon", node)


BLOWS: list[tuple[Blow, int, str, int, bool]] = [
    # what happens, the number of the Job that it meets, how the status tells it, the trainer's exit code, whether the trainer could save
    (deleted, 1, "PodDeleted", 75, True),
    (killed, 1, "UnknownExit", 137, False),
    (evicted, 2, "Evicted", 75, True),
    (drained, 2, "Evicted", 75, True),
]


def begun(job: Job, starts: int) -> list[Object]:
    """What the journal has of so many starts of a trainer: it is gone at the end of a run."""
    return await_value(
        lambda: found if len(found := job.starts()) >= starts else None, what=f"{starts} starts", timeout=PATIENCE, every=0.5
    )


def compare(attempts: list[Object], starts: list[Object], saved: list[bool]) -> None:
    """Each attempt tells where it went on, and what that cost, as the journal has it; `saved`: whether the one before could save.

    A trainer that was killed or lost has left no message, and one that was suspended may be gone before it is read: what its end cost, its
    replacement tells.
    """
    for attempt, start, nothing_lost in zip(attempts, starts, saved, strict=True):
        assert attempt["pod"] == start["host"]
        if attempt["reason"] not in UNHEARD or "stepsLost" in attempt:
            assert (attempt.get("resumedFromStep"), attempt["stepsLost"]) == (start["resumedFromStep"], start["stepsLost"])
        assert start["stepsLost"] == 0 if nothing_lost else 0 <= start["stepsLost"] <= 2 * EVERY


def test_a_job_goes_on_whatever_ends_its_pods(platform: Platform, expected: Expected) -> None:
    weights = expected.weights()  # now: a drain removes every pod of the node, the one that these come from too
    job = Job.submit(platform, manifest("struck"))
    pod = job.next_trainer(None)
    for blow, *_ in BLOWS:
        job.await_commit_by(pod)
        blow(job, pod)
        pod = job.next_trainer(pod)
    starts = begun(job, len(BLOWS) + 1)
    status = job.await_phase("Succeeded", LONG)

    attempts = [each for each in status["attempts"] if each["segment"] == "domain, task"]
    told = [(each["number"], each["reason"], each["exitCode"]) for each in attempts]
    assert told == [*((number, reason, code) for _, number, reason, code, _ in BLOWS), (2, "Succeeded", 0)]
    compare(attempts, starts, [True, *(could_save for *_, could_save in BLOWS)])
    (budget,) = status["budgets"]
    assert (budget["attempts"], budget["preemptions"]) == (1, 3)
    assert job.weights() == weights


def test_a_job_is_suspended_and_outlives_the_operator_and_the_api_server(platform: Platform, expected: Expected) -> None:
    cluster = platform.cluster
    job = Job.submit(platform, manifest("paused"))
    pod = job.next_trainer(None)
    job.await_commit_by(pod)
    job.patch(suspend=True)
    job.await_phase("Suspended")
    assert [found["metadata"]["name"] for found in job.pods() if found["status"]["phase"] not in ("Succeeded", "Failed")] == []
    condition = job.condition("Suspended")
    assert (condition["status"], condition["reason"]) in (("True", "CheckpointVerified"), ("True", "CheckpointUnconfirmed"))

    job.patch(suspend=False)
    pod = job.next_trainer(pod)
    job.await_commit_by(pod)
    starts = begun(job, 2)
    operator = platform.await_operator()
    strike(operator, signal.SIGKILL, "finetune_operator")
    restarted = await_value(
        lambda: found if (found := platform.operator_pod()) and restarts(found) > restarts(operator) else None,
        what="the operator's next container",
        timeout=PATIENCE,
        every=0.5,
    )
    assert restarted["metadata"]["uid"] == operator["metadata"]["uid"]

    journal = job.run_folder / "journal.jsonl"
    cluster.processes.kill("kube-apiserver")
    size = journal.stat().st_size
    time.sleep(60)
    # It is removed at the end of a run.
    assert not journal.exists() or journal.stat().st_size > size
    cluster.processes.again("kube-apiserver")
    cluster.await_api_server()

    status = job.await_phase("Succeeded", LONG)
    attempts = [each for each in status["attempts"] if each["segment"] == "domain, task"]
    assert [(each["number"], each["reason"]) for each in attempts] == [(1, "Suspended"), (2, "Succeeded")]
    # Two starts: neither the operator's death nor the API server's absence made the trainer begin again.
    compare(attempts, starts, [True, True])
    assert "budgets" not in status
    assert len(job.batch_jobs()) == 3, "the suspended Job is gone, and no other was made than prepare, train and report"
    assert job.weights() == expected.weights()


@pytest.fixture
def victim(platform: Platform) -> str:
    """The name of the node on which the operator does not run; pods of the runtime `lost` go there."""
    return next(node.name for node in platform.cluster.nodes if node.name != platform.await_operator()["spec"]["nodeName"])


def test_a_node_is_lost_and_comes_back_while_its_container_goes_on(platform: Platform, victim: str, expected: Expected) -> None:
    cluster = platform.cluster
    node, path = cluster.node(victim), f"/api/v1/nodes/{victim}"
    cluster.api.patch(path, {"metadata": {"labels": VICTIM}})
    job = Job.submit(platform, manifest("lost", runtimeRef={"name": "lost"}))
    zombie = job.next_trainer(None)
    assert zombie["spec"]["nodeName"] == victim
    job.await_commit_by(zombie)
    try:
        node.kill_kubelet()
        before = len(job.commits(zombie))
        await_value(lambda: len(job.commits(zombie)) > before, what="the lost node's container going on", timeout=PATIENCE, every=0.5)
        # It would be done before the node is given up: it stands still until its replacement has begun.
        strike(zombie, signal.SIGSTOP)
        successor = job.next_trainer(zombie)
        job.await_commit_by(successor)
        starts = begun(job, 2)
        before = len(job.commits(zombie))
        strike(zombie, signal.SIGCONT)
        # What it would save next is refused: a later start has taken over. Nobody but itself can end it: its node has no kubelet.
        await_value(lambda: not processes(zombie), what="the lost node's trainer ending by itself", timeout=PATIENCE, every=0.5)
        assert len(job.commits(zombie)) == before
    finally:
        cluster.api.patch(path, {"metadata": {"labels": dict.fromkeys(VICTIM)}})
        node.start_kubelet()
    assert successor["spec"]["nodeName"] != victim
    status = job.await_phase("Succeeded", LONG)
    attempts = [each for each in status["attempts"] if each["segment"] == "domain, task"]
    assert [(each["number"], each["reason"], each["node"]) for each in attempts] == [
        (1, "NodeLost", victim),
        (2, "Succeeded", successor["spec"]["nodeName"]),
    ]
    assert attempts[1]["resumedFromStep"] >= EVERY
    compare(attempts, starts, [True, False])
    (budget,) = status["budgets"]
    assert (budget["attempts"], budget["preemptions"]) == (0, 1)
    assert job.weights() == expected.weights()
    assert cluster.api.find(pod_path(zombie)) is None


def restarts(pod: Object) -> int:
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))


def test_the_operator_runs_under_restricted_too(platform: Platform) -> None:
    namespace = platform.cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
