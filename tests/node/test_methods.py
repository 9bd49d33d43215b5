"""Methods and guards in real pods: jobs of two stages that all work at once, and what the status says of each while it trains and at its end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.apiserver.follower import Follower
from tests.cluster.api import Object
from tests.node.jobs import Job, manifest
from tests.node.platform import ASSETS, TEAM, Platform

STEPS: Final = 60

LORA: Final = {"type": "lora", "lora": {"r": 4, "alpha": 8}}
REPLAYED: Final = [
    {"uri": f"pvc://{ASSETS}/demo/data/definitions-150.jsonl", "weight": 0.8},
    {"uri": f"pvc://{ASSETS}/demo/data/definitions-200.jsonl", "weight": 0.2, "replay": True},
]


@dataclass(frozen=True)
class Pair:
    """What a job does in its two stages."""

    domain: Object
    task: Object
    published: str
    hand_over: str = "continue"
    domain_guard: Object | None = None
    task_guard: Object | None = None
    replay: bool = False

    def document(self, name: str) -> Object:
        made = manifest(name, steps=STEPS)
        first, second = made["spec"]["stages"]
        first |= {"method": self.domain, "handOver": self.hand_over} | guarded(self.domain_guard)
        second |= {"method": self.task} | guarded(self.task_guard)
        if self.replay:
            second["data"] = {"train": REPLAYED}
        return made


def guarded(guard: Object | None) -> dict[str, Any]:
    return {"regularization": [guard]} if guard else {}


PAIRS: Final = {
    "full-adapter": Pair(
        {"type": "full"},
        {"type": "adapter", "adapter": {"size": 8}},
        "adapter",
        domain_guard={"type": "l2sp", "strength": 0.01, "anchor": "base"},
    ),
    "gradual-lora": Pair(
        {"type": "gradual", "gradual": {"everySteps": 15}},
        LORA,
        "merged",
        domain_guard={"type": "lossSpike", "action": "skip", "window": 20, "deviations": 8},
        task_guard={"type": "kl", "strength": 0.2},
    ),
    "gralora-ia3": Pair({"type": "gralora", "gralora": {"r": 4, "k": 2}}, {"type": "ia3"}, "merged", hand_over="merge"),
    "aflora-prompt": Pair({"type": "aflora"}, {"type": "promptTuning"}, "adapter", hand_over="merge", replay=True),
}


@dataclass(frozen=True)
class Trained:
    status: Object
    seen: list[Object]
    """Each status that it ever had."""


@pytest.fixture(scope="module")
def trained(installed: Platform) -> Iterator[dict[str, Trained]]:
    """All of them, each followed from its creation to its end."""
    installed.await_order()
    with contextlib.ExitStack() as stack:
        followers = {name: stack.enter_context(Follower(installed.cluster.api, TEAM, name)) for name in PAIRS}
        jobs = {name: Job.submit(installed, pair.document(name)) for name, pair in PAIRS.items()}
        ended = {}
        for name, job in jobs.items():
            job.await_phase("Succeeded")
            last = job.get()
            followers[name].await_state(last["metadata"]["resourceVersion"])
            ended[name] = Trained(last["status"], [each.get("status", {}) for each in followers[name].seen])
        yield ended
        for job in jobs.values():
            job.delete()


@pytest.mark.parametrize("name", PAIRS)
def test_progress_was_told_while_it_trained(name: str, trained: dict[str, Trained]) -> None:
    working = [
        status for status in trained[name].seen if status.get("phase") == "Running" and status.get("progress", {}).get("loss") is not None
    ]
    assert working, trained[name].seen
    assert all(0 < status["progress"]["step"] <= STEPS == status["progress"]["totalSteps"] for status in working)
    assert trained[name].status["progress"]["percent"] == 100


@pytest.mark.parametrize("name", PAIRS)
def test_each_stage_ends_with_its_figures(name: str, trained: dict[str, Trained]) -> None:
    status, pair = trained[name].status, PAIRS[name]
    assert status["summary"]["methods"] == f"{pair.domain['type']}+{pair.task['type']}"
    assert [(stage["name"], stage["phase"], stage["attempts"]) for stage in status["stages"]] == [
        ("domain", "Succeeded", 1),
        ("task", "Succeeded", 1),
    ]
    # The loss over the curve's last point, and what guards added to the last step's.
    assert all(0 < stage["metrics"]["loss"] < 20 for stage in status["stages"])
    for stage, guard in zip(status["stages"], (pair.domain_guard, pair.task_guard), strict=True):
        if guard is not None and guard["type"] in ("l2sp", "kl"):
            assert math.isfinite(stage["metrics"][f"guard_{guard['type']}"]), stage
    read = " ".join(status["provenance"]["datasetHashes"])
    assert ("definitions-200" in read) == pair.replay, read


@pytest.mark.parametrize("name", PAIRS)
def test_each_suite_is_measured_before_and_after_each_stage(name: str, trained: dict[str, Trained]) -> None:
    measured = trained[name].status["evaluation"]
    assert {each["suite"] for each in measured} == {"in-domain", "training-rows", "domain-rows", "knowledge"}
    for each in measured:
        assert [score["stage"] for score in each["stages"]] == ["domain", "task"], each
        assert all(math.isfinite(value) for value in (each["baseline"], *(score["value"] for score in each["stages"]))), each
    assert [each["gate"] for each in measured if "gate" in each] == ["Passed"]


@pytest.mark.parametrize("name", PAIRS)
def test_what_it_trained_is_published(name: str, trained: dict[str, Trained]) -> None:
    """What can be merged is, since its base was trained too; the rest is an adapter beside that base."""
    kinds = sorted(artifact["kind"] for artifact in trained[name].status["artifacts"])
    assert kinds == sorted([PAIRS[name].published, "report", "modelCard"])
