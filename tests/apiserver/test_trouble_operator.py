"""What happens to the operator and around it: killed, installed late, a runtime that changes or goes, clocks that disagree, a node that is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import pytest

from finetune_api.constants import RUNTIME_SNAPSHOT_ANNOTATION
from finetune_operator.kinds import NODE, RUNTIME, uid_of
from tests.apiserver.puppet import Puppet
from tests.apiserver.trouble import IMAGE, Scene
from tests.apiserver.trouble_job import ROWS, said
from tests.builders import job
from tests.builders import stage as stage_of
from tests.cluster import kwok

NEW_IMAGE: Final = "registry.example.com/trainer@sha256:" + "d" * 64
TWO_SEGMENTS: Final = job(
    stage_of("domain", handOver="merge", data=ROWS, resources={"gpus": 0}),
    stage_of("task", data=ROWS, resources={"gpus": 1}),
)


def test_an_operator_that_is_installed_after_the_jobs_were_made_serves_them(own_stage: Scene) -> None:
    stage = own_stage
    stage.operator.kill()
    trials = [stage.trial(f"waits-{number}") for number in range(5)]
    for trial in trials:
        assert trial.submit()["status"] == {"observedGeneration": -1}
    stage.operator.start()
    pods = [trial.run() for trial in trials]
    for trial, pod in zip(trials, pods, strict=True):
        trial.succeed(pod)
    stage.recorder.await_all()
    assert stage.recorder.duplicates([uid_of(trial.seen) for trial in trials]) == []


def test_what_ends_while_the_operator_is_down_is_told_when_it_is_back(stage: Scene) -> None:
    ended, failed = stage.trial("ended-meanwhile"), stage.trial("failed-meanwhile", spec__retry={"maxAttempts": 1})
    pods = [ended.start(), failed.start()]
    stage.operator.kill()
    stage.puppet.finish(pods[0], message=said())
    stage.puppet.finish(pods[1], 21, said("Failed", 21, reason="LossDiverged", message="step 7: the loss is NaN"))
    stage.operator.start()
    ended.await_phase("Succeeded")
    assert failed.await_failed("LossDiverged")["message"] == "step 7: the loss is NaN"


@pytest.mark.parametrize("gone", [False, True], ids=["changed", "deleted"])
def test_a_job_keeps_the_runtime_that_it_began_with(own_stage: Scene, gone: bool) -> None:
    """Upgraded mid-run: later attempts, segments and operators take the runtime from what the job carries."""
    stage = own_stage
    name = stage.runtime("upgraded")
    trial = stage.trial("began-before", runtime="upgraded", manifest=TWO_SEGMENTS, spec__retry={"maxAttempts": 2})
    pod = trial.start()
    if gone:
        stage.remove_runtime(name)
    else:
        stage.api.patch(RUNTIME.path(None, name), {"spec": {"image": NEW_IMAGE, "prepare": "ownPod"}})
    stage.operator.kill()
    stage.api.patch(f"{trial.path}/status", {"status": {"runtime": None}})
    stage.operator.start()
    stage.puppet.finish(pod, 40)
    trial.await_waiting("BackOff")
    stage.operator.advance(11)
    stage.puppet.finish(trial.run(2), message=said())
    trial.succeed(trial.run(1, segment=2))
    children = trial.batch_jobs()
    assert [child["spec"]["template"]["spec"]["containers"][0]["image"] for child in children] == [IMAGE] * 3
    assert {json.loads(child["metadata"]["annotations"][RUNTIME_SNAPSHOT_ANNOTATION])["generation"] for child in children} == {1}
    assert trial.status["runtime"]["image"] == IMAGE
    after = stage.trial("began-after", runtime="upgraded")
    after.submit()
    if gone:
        after.await_refused("RuntimeNotFound")
    else:
        assert after.await_pod(segment=0)["spec"]["containers"][0]["image"] == NEW_IMAGE


@pytest.mark.parametrize("hours", [1, -1], ids=["nodes-ahead", "nodes-behind"])
def test_a_node_whose_clock_is_an_hour_off_ends_no_job_and_delays_none(stage: Scene, hours: int) -> None:
    trial = stage.trial("node-ahead" if hours > 0 else "node-behind", spec__activeDeadlineSeconds=1800, spec__retry={"maxAttempts": 2})
    trial.puppet = Puppet(stage.api, now=lambda: stage.operator.clock.now() + timedelta(hours=hours))
    pod = trial.start()
    stage.operator.advance(60)
    trial.puppet.finish(pod, 40)
    trial.await_that(lambda: trial.attempts() == [(1, "Stalled")], "the end is on record")
    stage.operator.advance(11)
    status = trial.succeed(trial.run(2))
    assert 0 <= status["usage"]["runningSeconds"] < 1800


@pytest.fixture
def nodes(control_plane: Any) -> Iterator[list[str]]:
    """Names of nodes that a test made, and that are removed after it."""
    made: list[str] = []
    yield made
    for name in made:
        control_plane.api.delete(NODE.path(None, name))


def test_a_lost_node_is_given_up_and_the_attempt_repeated_elsewhere(own_stage: Scene, nodes: list[str]) -> None:
    stage = own_stage

    def add_node(name: str) -> None:
        node = kwok.node(1, 0)
        node["metadata"] = {"name": name, "labels": {"kubernetes.io/hostname": name, "pool": stage.namespace}}
        stage.api.post(NODE.path(), node)
        nodes.append(name)

    add_node(f"{stage.namespace}-a")
    stage.runtime("pool", nodeSelector={"pool": stage.namespace}, nodeLostAfterSeconds=60)
    trial = stage.trial("lost-node", runtime="pool")
    with stage.puppet.heard(nodes[0]):
        pod = trial.start()
    stage.puppet.silence(nodes[0], pod)
    assert f"node {nodes[0]} says nothing more; if that lasts 60 s in all" in trial.await_waiting("NodeSilent")
    add_node(f"{stage.namespace}-b")
    with stage.puppet.heard(nodes[1]):
        stage.operator.advance(61)
        again = trial.run(2)
        assert again["spec"]["nodeName"] == nodes[1]
        trial.succeed(again)
    assert trial.attempts() == [(1, "NodeLost"), (2, "Succeeded")]
    assert trial.budgets() == [(0, 1)]
    assert pod["metadata"]["name"] not in [each["metadata"]["name"] for each in trial.pods()]
    stage.recorder.await_all()
    assert stage.recorder.at_once(uid_of(trial.seen)) == 1
