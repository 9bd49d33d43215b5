"""Whatever happens in whatever order: one trainer at a time, budgets kept, and an end that is reached. Also when the operator dies between its writes."""

from __future__ import annotations

import random

import pytest

from finetune_operator.decide import decide
from tests.unit.operator.worlds import World, at, published, result, runtime, two_segments

CODES = [0, 0, 0, 1, 20, 30, 40, 75, 75, 137, 255]


class Chaos(World):
    """A world in which things happen by chance."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        spec = {"queueName": "q"} if self.random.random() < 0.2 else {}
        more = {"spec__retry": {"maxAttempts": 4, "maxPreemptions": 6}}
        prepare = self.random.choice(["ownPod", "inTrainPod"])
        super().__init__(two_segments(**more), runtime(prepare=prepare, **spec))

    def alive(self) -> list[str]:
        return [name for name, pod in self.pods.items() if pod["status"]["phase"] in ("Pending", "Running")]

    def at_work(self) -> list[str]:
        return [name for name, each in self.jobs.items() if not each["status"] and "deletionTimestamp" not in each["metadata"]]

    def happen(self) -> None:
        """One thing of all that can happen."""
        kind = self.random.choice(
            ["pod", "pod", "end", "end", "evict", "delete pod", "delete job", "suspend", "resume", "reap", "reap", "wait", "crash", "wipe"]
        )
        alive, jobs = self.alive(), self.at_work()
        if kind == "pod" and jobs and not any(self.owner(name) == jobs[-1] for name in alive):
            self.jobs[jobs[-1]]["spec"]["suspend"] = False
            self.run(owner=jobs[-1])
        elif kind == "end" and alive and self.owner(alive[-1]) in self.jobs:
            code = self.random.choice(CODES)
            self.end(alive[-1], code, published(truncated=self.random.random() < 0.5) if code == 0 else "", job_ends=code != 75)
        elif kind == "evict" and alive and self.owner(alive[-1]) in self.jobs:
            self.pods[alive[-1]]["status"]["conditions"] = [
                {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            ]
            self.end(alive[-1], 75, result("Stopped", 75, reason="Stopped"), job_ends=False)
        elif kind == "delete pod" and alive:
            self.gone(alive[-1])
        elif kind == "delete job" and jobs:
            self.jobs[jobs[-1]]["metadata"]["deletionTimestamp"] = at(self.seconds)
        elif kind in ("suspend", "resume"):
            self.job["spec"]["suspend"] = kind == "suspend"
            self.job["metadata"]["generation"] += 1
        elif kind == "reap":
            self.reap()
        elif kind == "wait":
            self.seconds += self.random.choice([1, 10, 400])
        elif kind == "crash":
            for action in self.decide().actions:
                if self.random.random() < 0.5:
                    break
                self._act(action)
        elif kind == "wipe" and self.random.random() < 0.2:
            self.job["status"] = {}

    def owner(self, pod: str) -> str:
        return str(self.pods[pod]["metadata"]["ownerReferences"][0]["name"])

    def reap(self) -> None:
        """What is Terminating goes."""
        leaving = [name for name, each in self.jobs.items() if "deletionTimestamp" in each["metadata"]]
        self.gone(*leaving)
        self.gone(*[name for name in list(self.pods) if self.owner(name) not in self.jobs])

    def check(self) -> None:
        alive = [name for name in self.alive() if self.owner(name) in self.at_work()]
        assert len(alive) <= 1, alive
        assert len(self.at_work()) <= 1
        seen = self.observed(pod_nodes={}, events=(), nodes=(), siblings=(), runtimes=self.runtimes)
        assert decide(seen) == decide(seen)


@pytest.mark.parametrize("seed", range(10))
def test_any_order(seed: int) -> None:
    world = Chaos(seed)
    for _ in range(40):
        world.happen()
        world.step(1)
        world.check()
    world.job["spec"]["suspend"] = False
    for _ in range(60):
        if world.status.get("phase") in ("Succeeded", "Failed"):
            break
        world.reap()
        alive, jobs = world.alive(), world.at_work()
        if alive:
            world.end(alive[-1], 0, published())
        elif jobs:
            world.jobs[jobs[-1]]["spec"]["suspend"] = False
            world.run(owner=jobs[-1])
        world.step(400)
    assert world.condition("Finished")[0] == "True"
    assert world.condition("Reconciling")[0] == "False"
    for budget in world.status.get("budgets", []):
        assert budget["attempts"] <= 4
        assert budget["preemptions"] <= 7
    written = len(world.statuses)
    world.step(1)
    assert len(world.statuses) == written
