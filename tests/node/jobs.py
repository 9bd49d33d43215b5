"""FineTuneJobs on real nodes: submitted as a user does it, and followed by their status, their pods, and what their trainers leave on the volume."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from finetune_api import constants as c
from tests.cluster.api import Object
from tests.cluster.pods import await_value, pod_path
from tests.node.platform import ASSETS, PATIENCE, TEAM, Platform

T = TypeVar("T")
STEPS: Final = 150
"""Of each stage: some twenty seconds, so that there is time to disturb it."""
EVERY: Final = 10


def manifest(name: str, *, steps: int = STEPS, **spec: Any) -> Object:
    """A domain stage that is merged before a task stage, measured on what was learned and on what must not be forgotten."""

    def rows(file: str) -> str:
        return f"pvc://{ASSETS}/demo/data/{file}.jsonl"

    def stage(name: str, objective: str, file: str, **fields: Any) -> Object:
        training = {"maxSteps": steps, "perDeviceTrainBatchSize": 8, "gradientAccumulationSteps": 3, "learningRate": 1e-3, "maxLength": 96}
        method = {"type": "lora", "lora": {"r": 4, "alpha": 8, "dropout": 0.1}}
        data = {"train": [{"uri": rows(file)}]}
        checkpoint = {"everySteps": EVERY, "keep": 2}
        return {
            "name": name,
            "objective": objective,
            "data": data,
            "method": method,
            "training": training,
            "checkpoint": checkpoint,
            **fields,
        }

    def suite(name: str, objective: str, file: str) -> Object:
        return {"name": name, "objective": objective, "data": {"uri": rows(file)}, "metrics": ["loss", "perplexity"]}

    # So many that a termination message can't hold what is measured: a report Job tells it.
    suites = [
        suite("in-domain", "supervised", "definitions-test"),
        suite("training-rows", "supervised", "definitions-150"),
        suite("domain-rows", "causalLanguageModeling", "glosses-1000"),
        suite("knowledge", "causalLanguageModeling", "python-reference"),
    ]
    gates = [{"suite": "in-domain", "metric": "loss", "stage": "task", "minImprovement": {"absolute": 0.1}}]
    return {
        "apiVersion": c.API_VERSION,
        "kind": c.KIND,
        "metadata": {"name": name, "namespace": TEAM},
        "spec": {
            "references": {"claims": [{"name": ASSETS, "claimName": ASSETS}]},
            "model": {"uri": f"pvc://{ASSETS}/demo/models/smollm2-135m-instruct"},
            "seed": 11,
            "stages": [
                stage("domain", "causalLanguageModeling", "glosses-1000", handOver="merge"),
                stage("task", "supervised", "definitions-150"),
            ],
            "evaluation": {"samples": {"count": 1, "maxNewTokens": 4}, "suites": suites, "gates": gates},
            **spec,
        },
    }


class Job:
    """One FineTuneJob that was submitted."""

    def __init__(self, platform: Platform, name: str, namespace: str = TEAM) -> None:
        self.platform = platform
        self.name = name
        self.namespace = namespace
        self.path = f"/apis/{c.API_VERSION}/namespaces/{namespace}/{c.PLURAL}/{name}"

    @classmethod
    def submit(cls, platform: Platform, document: Object) -> Job:
        """`kubectl apply`."""
        platform.cluster.kubectl("apply", "-f", "-", given=json.dumps(document))
        return cls(platform, document["metadata"]["name"], document["metadata"]["namespace"])

    def get(self) -> Object:
        return self.platform.cluster.api.get(self.path)

    def status(self) -> Object:
        found: Object = self.get().get("status", {})
        return found

    def patch(self, **spec: Any) -> None:
        self.platform.cluster.api.patch(self.path, {"spec": spec})

    def delete(self) -> None:
        self.platform.cluster.api.delete(self.path)

    def await_status(self, find: Callable[[Object], T | None], what: str, timeout: float = PATIENCE) -> T:
        """What is first found, given the status; where the job fails meanwhile, that is told at once."""

        def found() -> T | None:
            status = self.status()
            value = find(status)
            assert value or status.get("phase") != "Failed", f"{self.name} failed: {json.dumps(status.get('failure'), indent=1)}"
            return value

        try:
            return await_value(found, what=f"{self.name}: {what}", timeout=timeout, every=0.5)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.told()}") from None

    def await_phase(self, phase: str, timeout: float = PATIENCE) -> Object:
        return self.await_status(lambda status: status if status.get("phase") == phase else None, f"phase {phase}", timeout)

    def await_running_reason(self, reason: str) -> None:
        """Until the condition Running says why it is False."""
        self.await_status(lambda _: self.condition("Running").get("reason") == reason, f"Running with reason {reason}")

    def await_failure(self) -> Object:
        """What the status says of it once the job has failed."""
        found: Object = await_value(lambda: self.status().get("failure"), what=f"{self.name} failing", timeout=PATIENCE, every=0.5)
        return found

    def await_gone(self, uid: str) -> None:
        """Until the job and all its Jobs and pods are gone."""

        def gone() -> bool:
            api, selector = self.platform.cluster.api, f"{c.JOB_UID_LABEL}={uid}"
            left = api.items(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=selector)
            return api.find(self.path) is None and not left

        await_value(gone, what=f"the end of all that belongs to {self.name}", timeout=PATIENCE, every=0.5)

    def condition(self, kind: str) -> Object:
        found: Object = next((each for each in self.status().get("conditions", []) if each["type"] == kind), {})
        return found

    def told(self) -> str:
        """The status and the pods, for a message."""
        status = {key: value for key, value in self.status().items() if key != "runtime"}
        pods = [(pod["metadata"]["name"], pod["spec"].get("nodeName"), pod["status"]["phase"]) for pod in self.pods()]
        return f"{json.dumps(status, indent=1)}\n{pods}"

    @property
    def uid(self) -> str:
        return str(self.get()["metadata"]["uid"])

    def batch_jobs(self) -> list[Object]:
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        return self.platform.cluster.api.items(path, labelSelector=f"{c.JOB_UID_LABEL}={self.uid}")

    def pods(self) -> list[Object]:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        return self.platform.cluster.api.items(path, labelSelector=f"{c.JOB_UID_LABEL}={self.uid}")

    def next_trainer(self, before: Object | None) -> Object:
        """The pod that trains, awaited; another one than `before`."""
        old = before["metadata"]["uid"] if before else None

        def found(_: Object) -> Object | None:
            for pod in self.pods():
                alive = pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp")
                if alive and pod["metadata"]["labels"][c.SEGMENT_LABEL] == "1" and pod["metadata"]["uid"] != old:
                    return pod
            return None

        return self.await_status(found, "a pod that trains")

    def delete_pod(self, pod: Object, grace: int | None = None) -> None:
        self.platform.cluster.api.delete(pod_path(pod), grace=grace)

    @property
    def run_folder(self) -> Path:
        """On this machine, where its claim was made for it."""
        name = f"ft-{self.name[:30]}-{self.uid[:8]}"
        return self.platform.volume(name, self.namespace) / self.namespace / f"{self.name}-{self.uid}"

    def events(self) -> list[dict[str, Any]]:
        """The journal on the volume, as far as its lines are whole."""
        events = []
        with contextlib.suppress(FileNotFoundError):
            for line in (self.run_folder / "journal.jsonl").read_bytes().split(b"\n"):
                with contextlib.suppress(ValueError):
                    events.append(json.loads(line))
        return events

    def starts(self) -> list[Object]:
        """Each start of a trainer: its pod as `host`, where it went on and what was lost."""
        return [event for event in self.events() if event["event"] == "start"]

    def commits(self, pod: Object) -> list[int]:
        """Step of each checkpoint that this pod committed."""
        return [event["step"] for event in self.events() if event["event"] == "commit" and event["host"] == pod["metadata"]["name"]]

    def await_commit_by(self, pod: Object) -> None:
        """Until a checkpoint by this pod lies on the volume."""
        self.await_status(lambda _: self.commits(pod), f"a checkpoint by {pod['metadata']['name']}")

    def weights(self) -> set[str]:
        """Digests of the weights that were published."""
        return {artifact["weightsSha256"] for artifact in self.status().get("artifacts", []) if "weightsSha256" in artifact}


def processes(pod: Object, words: str = "finetune_trainer") -> list[int]:
    """Process ids, on this machine, of a pod's containers whose command holds these words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mine = pod["metadata"]["uid"] in (folder / "cgroup").read_text().replace("_", "-")
            if mine and words in (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.append(int(folder.name))
    return found


def strike(pod: Object, number: signal.Signals, words: str = "finetune_trainer") -> None:
    """Send a signal to a pod's process, from the machine, past everything that Kubernetes knows."""
    targets = processes(pod, words)
    assert targets, f"{pod['metadata']['name']} has no process {words}"
    for target in targets:
        os.kill(target, number)
