"""The operator has the rights that it uses, and no other: the chart's rules against what the API server's audit log says it asked for.

The operator runs under the chart's own service account through the lives that jobs have: success and time to live, failure and retry,
suspension and resumption twice (the second Event counts up on the first), a lost node, a quota, no node with enough GPUs, a child
deleted by hand, a report of progress. Once for the whole cluster, once in namespaced mode.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from finetune_api import constants as c
from scripts.render_chart import DIGEST
from tests.apiserver import reporting
from tests.apiserver.installation import JOBS, USERNAME, apply, install, path_of, rules_of, running_operator, uninstall
from tests.apiserver.puppet import Puppet
from tests.builders import job, stage
from tests.cluster import Cluster, audit
from tests.cluster.api import Api
from tests.cluster.namespaces import fresh_namespace
from tests.cluster.pods import await_value

Document = dict[str, Any]
SECONDS: Final = 120
DEAD: Final = "dead"
"""A label and taint of the node without a kubelet."""
SUCCESS: Final = json.dumps({"outcome": "Succeeded", "exitCode": 0, "message": "done"})
FAILURE: Final = json.dumps({"outcome": "Failed", "exitCode": 1, "reason": "InternalError", "message": "broken"})


def runtime(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Document:
    """A runtime on the cluster's static volumes, whose pods end as the annotations say."""
    return {
        "apiVersion": c.API_VERSION,
        "kind": c.RUNTIME_KIND,
        "metadata": {"name": name},
        "spec": {
            "image": f"trainer@{DIGEST}",
            "gpus": 0,
            "prepare": "inTrainPod",
            "storage": {"claimTemplate": {"accessMode": "ReadWriteOnce", "size": "1Gi"}},
            "podAnnotations": {f"test-cluster/{key}": value for key, value in (annotations or {}).items()},
            **spec,
        },
    }


RUNTIMES: Final = (
    runtime("succeeds", {"finish-after": "1s", "exit-code": "0", "message": SUCCESS}),
    runtime("fails", {"finish-after": "1s", "exit-code": "1", "message": FAILURE}),
    runtime("runs"),
    runtime("too-large", gpus=16),
    runtime(
        "on-a-dead-node",
        nodeSelector={DEAD: "true"},
        tolerations=[{"operator": "Exists"}],
        nodeLostAfterSeconds=10,
    ),
)


def manifest(name: str, runtime: str, **spec: Any) -> Document:
    made = job(stage("only", data={"train": [{"uri": "hf://datasets/owner/name/x.jsonl"}]}), runtimeRef={"name": runtime}, **spec)
    return {**made, "metadata": {"name": name}}


class Lives:
    """FineTuneJobs of one namespace, and what is waited for in each of their lives."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.path = JOBS.format(namespace)

    def start(self, name: str, runtime: str, **spec: Any) -> None:
        self.api.post(self.path, manifest(name, runtime, **spec))

    def suspend(self, name: str, value: bool) -> None:
        self.api.patch(f"{self.path}/{name}", {"spec": {"suspend": value}})

    def phase(self, name: str, *phases: str) -> Document:
        def found() -> Document | None:
            seen = self.api.get(f"{self.path}/{name}")
            return seen if (seen.get("status") or {}).get("phase") in phases else None

        return await_value(found, what=f"{name} in {' or '.join(phases)}", timeout=SECONDS)

    def reason(self, name: str, *words: str) -> None:
        """Wait until a condition's reason or message has one of these words."""

        def found() -> bool:
            conditions = (self.api.get(f"{self.path}/{name}").get("status") or {}).get("conditions") or ()
            return any(word in f"{each['reason']} {each['message']}" for each in conditions for word in words)

        await_value(found, what=f"{name} saying {' or '.join(words)}", timeout=SECONDS)

    def attempt(self, name: str, reason: str) -> None:
        """Wait until an attempt has ended for this reason."""

        def found() -> bool:
            attempts = (self.api.get(f"{self.path}/{name}").get("status") or {}).get("attempts") or ()
            return any(each.get("reason") == reason for each in attempts)

        await_value(found, what=f"an attempt of {name} that ended with {reason}", timeout=SECONDS)

    def report(self, name: str, log: Path) -> None:
        """Say for a pod of this job how far it is, as its trainer would."""
        uid = self.api.get(f"{self.path}/{name}")["metadata"]["uid"]
        pods = f"/api/v1/namespaces/{self.namespace}/pods"

        def taken() -> bool:
            found = self.api.items(pods, labelSelector=f"{c.JOB_UID_LABEL}={uid}", fieldSelector="status.phase=Running")
            sent = [(reporting.authority_of(pod), reporting.token(self.api, pod)) for pod in found]
            return 200 in [reporting.report(reporting.port_of(log), *each, {"activity": "load"})[0] for each in sent]

        await_value(taken, what=f"a report of {name} that is taken", timeout=SECONDS)

    def told(self) -> str:
        """Where every job stands, for whoever reads a failure."""
        seen = [(each["metadata"]["name"], each.get("status") or {}) for each in self.api.items(self.path)]
        return "\n".join(f"{name}: {status.get('phase')}: {json.dumps(status.get('conditions'))}" for name, status in seen)

    def children(self, name: str) -> list[Document]:
        uid = self.api.get(f"{self.path}/{name}")["metadata"]["uid"]
        return self.api.items(f"/apis/batch/v1/namespaces/{self.namespace}/jobs", labelSelector=f"{c.JOB_UID_LABEL}={uid}")


def live(lives: Lives, limited: Lives, dead: str) -> None:
    """All the lives, side by side: what takes long is begun first."""
    lives.start("lost", "on-a-dead-node", retry={"maxAttempts": 1, "maxPreemptions": 1})
    lives.start("brief", "succeeds", ttlSecondsAfterFinished=1)
    lives.start("broken", "fails", retry={"maxAttempts": 2})
    lives.start("waiting", "too-large")
    lives.start("moved", "runs")
    lives.start("robbed", "runs")
    limited.start("limited", "runs")
    run_on_dead_node(lives, dead)
    for _ in range(2):
        lives.phase("moved", "Running", "Preparing")
        lives.suspend("moved", True)
        lives.phase("moved", "Suspended")
        lives.suspend("moved", False)
    await_value(lambda: lives.api.find(f"{lives.path}/brief") is None, what="the end of brief's time to live", timeout=SECONDS)
    lives.phase("broken", "Failed")
    lives.reason("waiting", "GPU", "gpu", "Unschedulable")
    limited.reason("limited", "quota", "Quota")
    lives.phase("robbed", "Running", "Preparing")
    (child,) = lives.children("robbed")
    lives.api.delete(f"/apis/batch/v1/namespaces/{lives.namespace}/jobs/{child['metadata']['name']}")
    await_value(
        lambda: [each for each in lives.children("robbed") if each["metadata"]["uid"] != child["metadata"]["uid"]],
        what="another Job for robbed",
        timeout=SECONDS,
    )
    lives.attempt("lost", c.AttemptReason.NODE_LOST)


def run_on_dead_node(lives: Lives, dead: str) -> None:
    """What the kubelet of that node had said of its pod before it fell silent."""
    pods = f"/api/v1/namespaces/{lives.namespace}/pods"
    with Puppet(lives.api).heard(dead):
        pod = await_value(
            lambda: next(iter(lives.api.items(pods, fieldSelector=f"spec.nodeName={dead}")), None),
            what="a pod on the dead node",
            timeout=SECONDS,
        )
        now = pod["metadata"]["creationTimestamp"]
        (container,) = pod["spec"]["containers"]
        running = {"name": container["name"], "image": container["image"], "imageID": "", "ready": True, "restartCount": 0}
        status = {
            "phase": "Running",
            "startTime": now,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
            "containerStatuses": [{**running, "started": True, "state": {"running": {"startedAt": now}}}],
        }
        lives.api.patch(f"{pods}/{pod['metadata']['name']}/status", {"status": status})


@contextlib.contextmanager
def dead_node(api: Api, name: str) -> Iterator[None]:
    """A node that was Ready once, and whose kubelet never says anything again."""
    condition = {
        "type": "Ready",
        "status": "True",
        "lastHeartbeatTime": "2020-01-01T00:00:00Z",
        "lastTransitionTime": "2020-01-01T00:00:00Z",
    }
    capacity = {"cpu": "64", "memory": "64Gi", "pods": "100"}
    status = {"capacity": capacity, "allocatable": capacity, "conditions": [condition], "nodeInfo": {"bootID": "boot-dead"}}
    spec = {"taints": [{"key": DEAD, "effect": "NoSchedule"}]}
    node = {
        "kind": "Node",
        "metadata": {"name": name, "labels": {DEAD: "true", "kubernetes.io/hostname": name}},
        "spec": spec,
        "status": status,
    }
    api.post("/api/v1/nodes", node)
    try:
        yield
    finally:
        api.delete(f"/api/v1/nodes/{name}")


@pytest.mark.parametrize("mode", ["cluster", "namespaced"])
def test_what_is_given_is_what_is_used(control_plane: Cluster, tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    api = control_plane.api
    with fresh_namespace(control_plane) as first, fresh_namespace(control_plane) as second:
        values = {"watchNamespaces": [first, second]} if mode == "namespaced" else {}
        documents = install(api, values)
        for each in RUNTIMES:
            apply(api, each)
        quota = {"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}}
        api.post(f"/api/v1/namespaces/{second}/resourcequotas", quota)
        start = audit.size(control_plane.audit_log)
        flags = ["--namespaces", f"{first},{second}"] if mode == "namespaced" else []
        log = tmp_path / "operator.log"
        with running_operator(control_plane, log, "--relist-seconds", "20", "--progress-port", "0", *reporting.FLAGS, *flags):
            reporting.port_of(log)  # it works: a pod must be on that node before the node's controller finds it silent
            lives, limited = Lives(api, first), Lives(api, second)
            with dead_node(api, f"dead-{mode}"):
                try:
                    live(lives, limited, f"dead-{mode}")
                    lives.report("robbed", log)
                finally:
                    print(lives.told(), limited.told(), sep="\n")  # pytest shows it where the test fails
        used = audit.used(control_plane.audit_log, USERNAME, start=start)
        given = audit.given(rules_of(documents))
        for each in RUNTIMES:
            api.delete(f"{path_of(each)}/{each['metadata']['name']}")
        uninstall(api, documents)
    with capsys.disabled():
        print(f"\n{mode}: {used.requests} requests, {len(used.allowed)} rights used, {len(given)} given")
    assert used.forbidden == frozenset(), f"asked for without a right: {', '.join(map(str, sorted(used.forbidden)))}"
    assert used.allowed - given == frozenset(), f"given by another role: {', '.join(map(str, sorted(used.allowed - given)))}"
    assert given - used.allowed == frozenset(), f"given, and never used: {', '.join(map(str, sorted(given - used.allowed)))}"
