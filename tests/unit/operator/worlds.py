"""A FineTuneJob and its children as the API server would have them, and a small clock-driven world that carries decisions out."""

from __future__ import annotations

import base64
import copy
import json
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from finetune_api import constants as c
from finetune_api.v1alpha1.status import FineTuneJobStatus
from finetune_operator.decide import decide
from finetune_operator.model import Create, Decision, Delete, Live, Need, Observed
from finetune_operator.names import is_reader
from tests import builders

Document = dict[str, Any]
UID: Final = "0a1b2c3d-0000-4000-8000-000000000001"
START: Final = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
IMAGE: Final = "registry.example.com/trainer@sha256:" + "a" * 64


def at(seconds: float) -> str:
    """A time, counted from the job's creation."""
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(**edits: Any) -> Document:
    """A FineTuneJob with one stage on a claim; edits by path, with `__` for a dot: `spec__suspend=True`."""
    document = builders.job(
        builders.stage("task", data={"train": [{"uri": "pvc://data/task.jsonl"}]}),
        references={"claims": [{"name": "data", "claimName": "team-data"}]},
        model={"uri": "hf://owner/model"},
    )
    document["metadata"] |= {"namespace": "team-a", "uid": UID, "generation": 1, "creationTimestamp": at(0), "resourceVersion": "1"}
    return builders.edited(document, {path.replace("__", "."): value for path, value in edits.items()})


def two_segments(**edits: Any) -> Document:
    """A job whose two stages ask for different GPUs."""
    stages = [
        builders.stage("domain", handOver="merge", data={"train": [{"uri": "pvc://data/a"}]}, resources={"gpus": 1}),
        builders.stage("task", data={"train": [{"uri": "pvc://data/b"}]}, resources={"gpus": 2}),
    ]
    return job(spec__stages=stages, **edits)


def runtime(name: str = "cpu", *, default: bool = True, **spec: Any) -> Document:
    """A ClusterFineTuneRuntime that prepares in the training pod, so that a job is one segment."""
    annotations = {c.DEFAULT_RUNTIME_ANNOTATION: "true"} if default else {}
    return {
        "apiVersion": c.API_VERSION,
        "kind": c.RUNTIME_KIND,
        "metadata": {"name": name, "uid": f"runtime-{name}", "generation": 3, "annotations": annotations},
        "spec": {"image": IMAGE, "storage": {"claimName": "runs"}, "prepare": "inTrainPod", **spec},
    }


def result(outcome: str = "Succeeded", exit_code: int = 0, **fields: Any) -> str:
    """A trainer's termination message."""
    return json.dumps({"outcome": outcome, "exitCode": exit_code, **fields})


def published(**fields: Any) -> str:
    """The message of a trainer that published an adapter."""
    artifact = {"kind": "adapter", "uri": "pvc://runs/x/artifacts/adapter", "sha256": "b" * 64, "bytes": 10}
    return result(artifacts=[artifact], **fields)


def pages(text: str, count: int = c.REPORT_PAGES) -> list[str]:
    """The messages of a report pod that tells this result."""
    data = base64.b64encode(zlib.compress(text.encode())).decode()
    size = -(-len(data) // count)
    return [json.dumps({"page": page, "pages": count, "data": data[page * size : (page + 1) * size]}) for page in range(count)]


class World:
    """A namespace with one FineTuneJob: decisions are carried out as the operator would, and each write is counted."""

    def __init__(self, manifest: Document | None = None, *runtimes: Document, **more: Any) -> None:
        self.job = manifest or job()
        self.runtimes = runtimes or (runtime(),)
        self.jobs: dict[str, Document] = {}
        self.pods: dict[str, Document] = {}
        self.orphans: list[Document] = []
        self.claim: Document | None = None
        self.seconds = 0.0
        self.statuses: list[Document] = []
        self.created: list[str] = []
        self.notes: list[str] = []
        self.told: list[str] = []
        self.requeue: float | None = None
        self.asked: list[Need] = []
        self.more: dict[str, Any] = {"pod_nodes": {}, "events": (), "nodes": (), "siblings": (), **more}
        self.refuse: Any = None
        self.serial = 0
        self.live: Live | None = None

    @property
    def status(self) -> Document:
        found: Document = self.job.get("status") or {}
        return found

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        return next((each["status"], each["reason"]) for each in self.status["conditions"] if each["type"] == kind)

    def observed(self, **more: Any) -> Observed:
        seen = Observed(
            job=copy.deepcopy(self.job),
            jobs=tuple(copy.deepcopy([each for name, each in self.jobs.items() if not is_reader(name)])),
            pods=tuple(copy.deepcopy([each for name, each in self.pods.items() if not is_reader(name)])),
            readers=tuple(copy.deepcopy([each for name, each in self.jobs.items() if is_reader(name)])),
            now=START + timedelta(seconds=self.seconds),
            orphans=tuple(self.orphans),
            claim=self.claim,
            live=self.live,
        )
        return replace(seen, **more)

    def decide(self, **more: Any) -> Decision:
        """Decide, with what is needed read."""
        seen = self.observed(**more)
        decision = decide(seen)
        read: set[Need] = set()
        while decision.needs:
            assert not decision.needs & read, "a need is asked for twice"
            read |= decision.needs
            self.asked += sorted(decision.needs)
            for need in decision.needs:
                value = self.runtimes if need is Need.RUNTIMES else self.more[{Need.POD_NODES: "pod_nodes"}.get(need, need.value)]
                seen = replace(seen, **{{Need.POD_NODES: "pod_nodes"}.get(need, need.value): value})
            decision = decide(seen)
        return decision

    def step(self, seconds: float = 0.0) -> Decision:
        """Let time pass, and reconcile once. A second look at the same world must change nothing."""
        self.seconds += seconds
        decision = self.decide()
        refusals = tuple(refusal for action in decision.actions if (refusal := self._act(action)) is not None)
        if refusals:
            decision = self.decide(refusals=refusals)
            assert not decision.actions
        if decision.status is not None and decision.status != self.job.get("status"):
            FineTuneJobStatus.model_validate(decision.status)
            self.job["status"] = json.loads(json.dumps(decision.status))
            self.statuses.append(self.job["status"])
            self.notes += [note.reason for note in decision.notes]
            self.told += [note.message for note in decision.notes]
        self.requeue = decision.requeue_after
        return decision

    def settle(self, seconds: float = 0.0) -> None:
        """Reconcile until nothing changes any more; fails where it never does."""
        self.step(seconds)
        for _ in range(10):
            before = (len(self.statuses), len(self.created), len(self.jobs), len(self.pods))
            decision = self.step()
            if (len(self.statuses), len(self.created), len(self.jobs), len(self.pods)) == before and not decision.actions:
                return
        raise AssertionError("it never settles")

    def _act(self, action: Create | Delete) -> Any:
        if isinstance(action, Create):
            if self.refuse is not None:
                return self.refuse
            made = copy.deepcopy(dict(action.manifest))
            name = made["metadata"]["name"]
            assert name not in self.jobs, f"{name} is made twice"
            self.created.append(name)
            made["metadata"] |= {"uid": f"uid-of-{name}", "creationTimestamp": at(self.seconds)}
            if made["kind"] == "Job":
                self.jobs[name] = {**made, "status": {}}
            else:
                self.claim = made
        elif action.kind == "Job":
            self.jobs.get(action.name, {"metadata": {}})["metadata"]["deletionTimestamp"] = at(self.seconds)
            self.orphans = [other for other in self.orphans if other["metadata"]["uid"] != action.uid]
            for pod in self.pods.values():
                if pod["metadata"]["ownerReferences"][0]["uid"] == action.uid:
                    pod["metadata"]["deletionTimestamp"] = at(self.seconds + 60)
        elif action.kind == "Pod":
            pod = self.pods[action.name]
            pod["metadata"] |= {"deletionTimestamp": at(self.seconds), "deletionGracePeriodSeconds": action.grace_seconds}
        elif action.kind == "FineTuneJob":
            self.job["metadata"]["deletionTimestamp"] = at(self.seconds)
        return None

    # What the cluster does.

    @property
    def newest(self) -> str:
        """Name of the newest Job."""
        return list(self.jobs)[-1]

    def pod(
        self, name: str | None = None, *, owner: str | None = None, phase: str = "Pending", node: str | None = "node-1", **status: Any
    ) -> str:
        """Make a pod of the newest Job."""
        owner = owner or self.newest
        self.serial += 1
        name = name or f"{owner}-{self.serial}"
        reference = {"kind": "Job", "name": owner, "uid": self.jobs[owner]["metadata"]["uid"], "controller": True}
        self.pods[name] = {
            "metadata": {"name": name, "uid": f"uid-of-{name}", "creationTimestamp": at(self.seconds), "ownerReferences": [reference]},
            "spec": {"nodeName": node} if node else {},
            "status": {"phase": phase, **status},
        }
        return name

    def run(self, name: str | None = None, container: str = "trainer", **more: Any) -> str:
        """Make a pod of the newest Job whose container runs."""
        name = self.pod(name, phase="Running", startTime=at(self.seconds), **more)
        self.pods[name]["status"]["containerStatuses"] = [{"name": container, "state": {"running": {"startedAt": at(self.seconds)}}}]
        return name

    def end(
        self, name: str, code: int, message: str = "", *, reason: str = "", job_ends: bool = True, seconds: float | None = None
    ) -> None:
        """End a pod's container, and its Job."""
        moment = at(self.seconds if seconds is None else seconds)
        pod = self.pods[name]["status"]
        ended = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error"), "message": message}
        ended |= {"startedAt": pod.get("startTime", moment), "finishedAt": moment}
        pod["phase"] = "Succeeded" if code == 0 else "Failed"
        pod["containerStatuses"] = [{"name": "trainer", "state": {"terminated": ended}}]
        if job_ends:
            owner = self.pods[name]["metadata"]["ownerReferences"][0]["name"]
            kind = "Complete" if code == 0 else "Failed"
            self.jobs[owner]["status"] = {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": moment}]}

    def gone(self, *names: str) -> None:
        """Jobs or pods are gone."""
        for name in names:
            self.jobs.pop(name, None)
            self.pods.pop(name, None)


def attempts(world: World) -> list[tuple[Any, ...]]:
    """Number and reason of each attempt in the status."""
    return [(each["number"], each.get("reason")) for each in world.status.get("attempts", [])]


def spent(world: World) -> list[tuple[int, int]]:
    """Attempts and preemptions that were charged, for each segment."""
    return [(each["attempts"], each["preemptions"]) for each in world.status.get("budgets", [])]
