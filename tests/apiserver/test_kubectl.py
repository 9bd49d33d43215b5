"""What a person sees with kubectl alone: the columns, a description that reads as a story, and every field explained."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Final

from finetune_api.constants import ClusterReason, ConditionReason, Reason
from finetune_operator.kinds import JOB, uid_of
from tests import builders
from tests.apiserver.trouble import Scene
from tests.apiserver.trouble_job import ROWS, Trial, published, stopped
from tests.cluster.api import Object

GATED: Final[dict[str, Any]] = {
    "suites": [builders.suite("in-domain") | {"data": {"uri": "hf://datasets/team/rows/test.jsonl"}}],
    "gates": [{"suite": "in-domain", "metric": "loss", "minImprovement": {"absolute": 0.1}}],
}
MEASURED: Final[list[Object]] = [
    {"suite": "in-domain", "metric": "loss", "baseline": 5.3381, "stages": [{"stage": "task", "value": 3.3102}], "gate": "Passed"}
]
PASSING: Final = (ConditionReason.STARTING, ConditionReason.STOPPING, ConditionReason.PREPARING)
"""What a fast machine passes by without a word."""


def cells(stage: Scene, trial: Trial) -> dict[str, str]:
    """The job's line of `kubectl get -o wide`, by column."""
    header, line = stage.cluster.kubectl("get", "ftj", trial.name, "-n", stage.namespace, "-o", "wide").splitlines()
    starts = [(found.start(), found[0]) for found in re.finditer(r"\S+", header)]
    return {name: line[start:end].strip() for (start, name), (end, _) in pairwise([*starts, (len(line) + 1, "")])}


def admit(stage: Scene, trial: Trial) -> None:
    """What Kueue does when there is quota."""
    (made,) = trial.batch_jobs()
    stage.api.patch(JOB.path(stage.namespace, made["metadata"]["name"]), {"spec": {"suspend": False}})


def test_each_column_is_filled_by_what_the_operator_writes(stage: Scene) -> None:
    """Progress, loss and the time left are in test_progress.py: they take a pod that reports."""
    stage.runtime("queued", queueName="team-a")
    trial = stage.trial("columns", runtime="queued", spec__evaluation=GATED)
    trial.submit()
    trial.await_phase("Queued")
    waiting = cells(stage, trial)
    assert list(waiting) == [
        "NAME",
        "PHASE",
        "STAGE",
        "PROGRESS",
        "LOSS",
        "ETA",
        "QUEUE",
        "AGE",
        "MODEL",
        "METHOD",
        "NODE",
        "ATTEMPTS",
        "SCORE",
    ]
    filled = {"NAME": "columns", "STAGE": "task", "QUEUE": "team-a", "MODEL": "hf://owner/model", "METHOD": "lora"}
    assert waiting.items() >= {**filled, "PHASE": "Queued", "NODE": "", "ATTEMPTS": "", "SCORE": ""}.items()
    admit(stage, trial)
    pod = trial.run()
    assert cells(stage, trial).items() >= {**filled, "PHASE": "Running", "NODE": pod["spec"]["nodeName"], "ATTEMPTS": "1/3"}.items()
    trial.succeed(pod, evaluation=MEASURED)
    ended = cells(stage, trial)
    assert ended.items() >= {**filled, "PHASE": "Succeeded", "STAGE": "", "PROGRESS": "100", "SCORE": "loss 5.338 → 3.31"}.items()
    assert re.fullmatch(r"\d+[smh]\d*s?", ended["AGE"])


def told(stage: Scene, trial: Trial) -> list[Object]:
    """The Events of a job, in the order in which they were first said."""
    events = stage.api.items(f"/apis/events.k8s.io/v1/namespaces/{stage.namespace}/events")
    mine = [event for event in events if event.get("regarding", {}).get("uid") == uid_of(trial.seen)]
    return sorted(mine, key=lambda event: str(event["eventTime"]))


def test_a_description_reads_as_a_story_and_says_nothing_twice(stage: Scene) -> None:
    trial = stage.trial("story", manifest=builders.job(builders.stage("task", data=ROWS)))
    pod = trial.start()
    trial.edit(suspend=True)
    trial.await_phase("Suspending")
    trial.stop(trial.await_stopping(pod), message=stopped(40))
    trial.await_phase("Suspended")
    trial.edit(suspend=False)
    again = trial.run(2)
    # An Event follows its status: an operator that dies between the two never tells it.
    trial.await_that(lambda: [event["reason"] for event in told(stage, trial)].count("Training") == 2, "the Event of its second start")
    stage.operator.kill()
    stage.operator.start()
    stage.operator.advance(31)
    stage.puppet.finish(again, message=published())
    trial.await_phase("Succeeded")

    def whole() -> list[Object] | None:
        """Until the last of them is written: they follow the status."""
        events = told(stage, trial)
        return events if events and events[-1]["reason"] == "Succeeded" else None

    events = trial.await_that(whole, "an Event of its end")
    assert [event["reason"] for event in events if event["reason"] not in PASSING] == [
        "Training",
        "Suspending",
        "CheckpointVerified",
        "Training",
        "Succeeded",
    ]
    assert {event["type"] for event in events} == {"Normal"}
    assert all("series" not in event for event in events), "nothing is said twice"
    assert {event["reason"] for event in events} <= {*ConditionReason, *Reason, *ClusterReason}
    described = stage.cluster.kubectl("describe", "ftj", trial.name, "-n", stage.namespace)
    assert re.search(rf"Training .*finetune.dev/finetune-operator +pod {again['metadata']['name']} runs on node", described)
    assert "1 artifact was published and verified" in described


def test_kubectl_explains_a_field_with_an_example(stage: Scene) -> None:
    said = stage.cluster.kubectl("explain", "ftj.spec.stages.training.learningRate")
    assert "Peak learning rate" in said and "Example: 1.0e-4" in said
    fields = stage.cluster.kubectl("explain", "ftj", "--recursive")
    assert "handOverWeights" in fields and "etaSeconds" in fields
