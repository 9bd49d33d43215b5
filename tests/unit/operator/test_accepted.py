"""What a cluster refuses of a job, with the field and what to write instead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.model import Sibling
from finetune_operator.outputs import output_of
from tests.unit.operator.worlds import UID, World, at, job, runtime


def message(world: World) -> str:
    return str(next(each["message"] for each in world.status["conditions"] if each["type"] == "Accepted"))


CLASSIFIER = "spec.stages[0].training.earlyStopping.classifier"


def judged(uri: str, **more: str) -> dict[str, Any]:
    """Edits of the one stage, so that it stops by the Instruction Following Score."""
    rule = {"metric": "eval_instruction_following", "classifier": {"uri": uri, **more}}
    at = "spec__stages[0]"
    return {
        f"{at}__objective": "supervised",
        f"{at}__data__validation": {"fraction": 0.1},
        f"{at}__evalSteps": 5,
        f"{at}__training": {"earlyStopping": rule},
    }


@pytest.mark.parametrize(
    ("edits", "spec", "words"),
    [
        ({"spec__model__uri": "file://./model"}, {}, "spec.model.uri: file://./model: there is no such folder on a cluster: use pvc://"),
        ({"spec__output": {"uri": "file://./out"}}, {}, "spec.output.uri: file://./out"),
        ({"spec__model__uri": "pvc://models/m"}, {}, "spec.model.uri: pvc://models/m names no claim of this job or its runtime (data)"),
        (
            {"spec__model": {"uri": "hf://a/b", "credentials": "hub"}},
            {},
            "spec.model.credentials: hub names no Secret of this job or its runtime (there is none)",
        ),
        (judged("file://./answers"), {}, f"{CLASSIFIER}.uri: file://./answers: there is no such folder on a cluster"),
        (judged("pvc://models/answers"), {}, f"{CLASSIFIER}.uri: pvc://models/answers names no claim of this job or its runtime (data)"),
        (judged("hf://a/b", credentials="hub"), {}, f"{CLASSIFIER}.credentials: hub names no Secret of this job or its runtime"),
        ({"spec__seed": "7"}, {}, "spec.seed"),
        ({"metadata__name": "with.dot"}, {}, "metadata.name"),
        ({"spec__output": {"retain": "Never"}}, {}, "spec.output.retain: Never deletes the artifacts"),
        (
            {"spec__output": {"uri": "pvc://shared/x"}},
            {"claims": [{"name": "shared", "claimName": "s", "readOnly": True}]},
            "spec.output.uri: pvc://shared/x: the runtime gives this claim for reading only",
        ),
    ],
)
def test_refused(edits: dict[str, Any], spec: dict[str, Any], words: str) -> None:
    world = World(job(**edits), runtime(**spec))
    world.settle(1)
    assert world.condition("Accepted") == ("False", "InvalidSpec")
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert world.condition("Reconciling")[0] == "False"
    assert words in message(world)
    assert world.created == []
    assert "runtime" not in world.status


@pytest.mark.parametrize(
    ("edits", "spec"),
    [
        ({"spec__model__uri": "pvc://shared/m"}, {"claims": [{"name": "shared", "claimName": "s", "readOnly": True}]}),
        (judged("pvc://shared/answers"), {"claims": [{"name": "shared", "claimName": "s", "readOnly": True}]}),
        ({"spec__output": {"retain": "Never"}}, {"storage": {"claimTemplate": {"size": "1Gi"}}}),
        ({"spec__model": {"uri": "hf://a/b", "credentials": "hub"}}, {"secrets": [{"name": "hub", "secretName": "hub-token"}]}),
    ],
)
def test_accepted(edits: dict[str, Any], spec: dict[str, Any]) -> None:
    world = World(job(**edits), runtime(**spec))
    world.settle(1)
    assert any("-1-1" in name for name in world.created)


@pytest.mark.parametrize(
    ("edits", "spec"),
    [
        ({"spec__model__uri": "pvc://shared/m"}, {"claims": [{"name": "shared", "claimName": "s", "readOnly": True}]}),
        ({"spec__model": {"uri": "hf://a/b", "credentials": "hub"}}, {"secrets": [{"name": "hub", "secretName": "hub-token"}]}),
        ({"spec__output": {"retain": "Never"}}, {"storage": {"claimTemplate": {"size": "1Gi"}}}),
    ],
)
def test_a_job_starts_when_its_runtime_gives_what_it_names(edits: dict[str, Any], spec: dict[str, Any]) -> None:
    world = World(job(**edits))
    world.settle(1)
    assert world.condition("Accepted") == ("False", "InvalidSpec")
    assert world.requeue == 30, "runtimes are not watched"
    world.runtimes = (runtime(**spec),)
    world.settle(30)
    assert any("-1-1" in name for name in world.created)


def test_a_spec_that_no_runtime_mends_is_not_looked_at_again() -> None:
    world = World(job(spec__model__uri="file://./model"))
    world.settle(1)
    assert world.requeue is None


def test_a_job_that_runs_is_not_refused_for_what_its_runtime_gives_now() -> None:
    world = World()
    world.settle(1)
    world.jobs[world.newest]["metadata"]["annotations"] = {}
    world.runtimes = (runtime(storage={"claimTemplate": {"size": "1Gi"}}),)
    world.run()
    world.settle(1)
    assert world.condition("Accepted")[0] == "True"


def sibling(
    name: str, created: float, uri: str = "pvc://out/model", *, uid: str = UID, has_job: bool = False, claim: str = "results", **status: Any
) -> Sibling:
    """Another FineTuneJob of the namespace."""
    manifest = {
        "metadata": {"name": name, "uid": uid, "creationTimestamp": at(created)},
        "spec": {"output": {"uri": uri}, "references": {"claims": [{"name": "out", "claimName": claim}]}},
        "status": status,
    }
    output = output_of(manifest)
    assert output is not None
    return Sibling(name, uid, replace(output, begun=output.begun or has_job))


FAILED = {"conditions": [{"type": "Failed", "status": "True"}]}


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([], "Starting"),
        ([sibling("older", -5)], "OutputTaken"),
        ([sibling("older", -5, "pvc://out//model/")], "OutputTaken"),
        ([sibling("younger", 5)], "Starting"),
        ([sibling("older", -5, "pvc://out/other")], "Starting"),
        ([sibling("failed", -5, **FAILED)], "Starting"),
        ([sibling("same-second", 0, uid="0")], "OutputTaken"),
        ([sibling("same-second", 0, uid="z")], "Starting"),
        ([sibling("same-second-and-begun", 0, uid="z", attempts=[{"segment": "task", "number": 1}])], "OutputTaken"),
        ([sibling("same-second-with-a-job", 0, uid="z", has_job=True)], "OutputTaken"),
        ([sibling("on-another-claim", -5, claim="others")], "Starting"),
        ([sibling("by-the-runtimes-name", -5, "pvc://mine/model", claim="others")], "OutputTaken"),
    ],
)
def test_the_older_job_has_the_output(others: list[Any], reason: str) -> None:
    claims = [{"name": "data", "claimName": "team-data"}, {"name": "mine", "claimName": "results"}]
    world = World(job(spec__output={"uri": "pvc://mine/model"}, spec__references={"claims": claims}))
    world.more["siblings"] = tuple(others)
    world.settle(1)
    world.settle(10)
    assert world.condition("Running")[1] == reason
    assert len(world.created) == (reason == "Starting")
    if reason == "OutputTaken":
        world.more["siblings"] = ()
        world.settle(60)
        assert len(world.created) == 1
