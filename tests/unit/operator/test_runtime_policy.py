"""Which runtime a job gets, and that it keeps the one with which it started."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api import constants as c
from finetune_operator.snapshot import RuntimeSnapshot
from tests.unit.operator.worlds import World, job, published, runtime


@pytest.mark.parametrize(
    ("edits", "runtimes", "reason", "words"),
    [
        ({}, [runtime("a", default=False)], "RuntimeNotFound", "no ClusterFineTuneRuntime is the default (a)"),
        ({}, [], "RuntimeNotFound", "there is no runtime at all"),
        ({}, [runtime("b"), runtime("a")], "RuntimeNotUnique", "2 runtimes are the default (a, b)"),
        ({"spec__runtimeRef": {"name": "gpu"}}, [runtime("a")], "RuntimeNotFound", "there is no ClusterFineTuneRuntime gpu (a)"),
        ({}, [runtime("a", image="trainer:latest")], "RuntimeInvalid", "spec.image"),
    ],
)
def test_without_a_runtime_a_job_is_not_accepted(edits: dict[str, Any], runtimes: list[Any], reason: str, words: str) -> None:
    world = World(job(**edits))
    world.runtimes = tuple(runtimes)
    world.settle(1)
    assert world.condition("Accepted") == ("False", reason)
    assert world.condition("Stalled") == ("True", reason)
    assert words in next(each["message"] for each in world.status["conditions"] if each["type"] == "Accepted")
    assert world.requeue == 30
    assert world.created == []
    world.runtimes = (runtime("gpu"),)
    world.settle(30)
    assert len(world.created) == 1, "it starts as soon as there is one"


def test_a_runtime_that_is_changed_or_deleted_reaches_new_jobs_only() -> None:
    world = World()
    world.settle(1)
    name = world.run()
    world.settle(1)
    world.runtimes = ()
    world.end(name, 1)
    world.settle(1)
    world.settle(11)
    first, second = world.jobs.values()
    assert len(world.created) == 2
    snapshots = [each["metadata"]["annotations"][c.RUNTIME_SNAPSHOT_ANNOTATION] for each in (first, second)]
    assert snapshots[0] == snapshots[1]
    assert json.loads(snapshots[0])["generation"] == 3


def test_the_status_keeps_the_runtime_where_no_job_is_left() -> None:
    world = World()
    world.settle(1)
    name = world.run()
    world.settle(1)
    world.gone(world.newest, name)
    world.runtimes = ()
    world.settle(1)
    world.settle(11)
    assert len(world.created) == 2


def test_a_snapshot_that_somebody_changed_is_not_believed() -> None:
    world = World()
    world.settle(1)
    world.jobs[world.newest]["metadata"]["annotations"][c.RUNTIME_SNAPSHOT_ANNOTATION] = '{"image": "evil"}'
    name = world.run()
    world.settle(1)
    world.end(name, 0, published())
    world.settle(1)
    assert world.status["phase"] == "Succeeded"
    assert world.status["runtime"]["name"] == "cpu"


@pytest.mark.parametrize(
    ("spec", "threads"),
    [
        ({}, 1),
        ({"threads": 6}, 6),
        ({"resources": {"train": {"limits": {"cpu": "4"}}}}, 4),
        ({"resources": {"train": {"requests": {"cpu": "3500m"}}}}, 3),
        ({"resources": {"train": {"requests": {"cpu": "500m"}}}}, 1),
        ({"resources": {"train": {"requests": {"cpu": "8"}, "limits": {"cpu": "2.5"}}}}, 2),
    ],
)
def test_threads(spec: dict[str, Any], threads: int) -> None:
    assert RuntimeSnapshot.of(runtime(**spec)).threads == threads
