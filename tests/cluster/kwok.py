"""Nodes without machines, by kwok: the scheduler fills them, and their pods live and end as annotations of the pod say.

A pod runs until something ends it. Annotations (a runtime's `podAnnotations` can carry them) say otherwise:

| annotation | meaning |
| --- | --- |
| `test-cluster/finish-after` | a Go duration: the containers end so long after they started |
| `test-cluster/exit-code` | with this exit code (0) |
| `test-cluster/message` | and this termination message |
| `test-cluster/delete-after` | a Go duration: how long the containers of a deleted pod take to end (0s) |
| `test-cluster/delete-exit-code` | with this exit code (143) |
| `test-cluster/delete-message` | and this termination message |
| `test-cluster/by-hand` | kwok leaves the pod alone from its beginning to its end: a test plays the kubelet (`tests.apiserver.puppet`) |

Anything finer is a test's own: it writes the pod's status, as a kubelet would (`tests.cluster.pods`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster.api import Object

PREFIX = "test-cluster/"
MANAGED = "test-cluster/kwok"


def node(number: int, gpus: int) -> Object:
    """A node of 64 cores and 512 GiB that kwok keeps alive."""
    name = f"kwok-{number}"
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "500", "ephemeral-storage": "1Ti"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "type": "kwok"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels | {MANAGED: "true"}},
        "status": {"capacity": capacity, "allocatable": capacity, "nodeInfo": {"bootID": f"boot-{number}"}},
    }


def command(kwok: Path, kubeconfig: Path, stages: Path) -> list[str]:
    return [
        str(kwok),
        f"--kubeconfig={kubeconfig}",
        f"--config={stages}",
        f"--manage-nodes-with-label-selector={MANAGED}=true",
        "--node-lease-duration-seconds=20",
        "--cidr=10.0.0.1/8",
    ]


def stages() -> str:
    """kwok's configuration: JSON documents, one after the other (YAML reads them)."""
    return "\n---\n".join(
        json.dumps(stage, indent=1) for stage in (_node_ready(), _node_alive(), _pod_runs(), _pod_ends(), _pod_stopped(), _pod_gone())
    )


def _stage(name: str, kind: str, conditions: list[Any], next_: Any, delay: str = "") -> Object:
    waiting = {"delay": {"durationMilliseconds": 0, "durationFrom": {"expressionFrom": delay}}} if delay else {}
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": conditions},
            **waiting,
            "next": next_,
        },
    }


def _is(key: str, *values: str) -> Any:
    return {"key": key, "operator": "In", "values": list(values)}


def _not(key: str, *values: str) -> Any:
    return {"key": key, "operator": "NotIn", "values": list(values)}


def _exists(key: str) -> Any:
    return {"key": key, "operator": "Exists"}


def _absent(key: str) -> Any:
    return {"key": key, "operator": "DoesNotExist"}


READY = '.status.conditions.[] | select( .type == "Ready" ) | .status'
DELETED = ".metadata.deletionTimestamp"

NODE_CONDITIONS = """
{{ $now := Now }}
{{ $since := or .metadata.creationTimestamp $now }}
conditions:
{{ range NodeConditions }}
- {lastHeartbeatTime: {{ $now | Quote }}, lastTransitionTime: {{ $since | Quote }}, message: {{ .message | Quote }}, reason: {{ .reason | Quote }}, status: {{ .status | Quote }}, type: {{ .type | Quote }}}
{{ end }}
"""

POD_RUNS = """
{{ $now := Now }}
conditions:
- {lastTransitionTime: {{ $now | Quote }}, status: "True", type: Initialized}
- {lastTransitionTime: {{ $now | Quote }}, status: "True", type: Ready}
- {lastTransitionTime: {{ $now | Quote }}, status: "True", type: ContainersReady}
containerStatuses:
{{ range .spec.containers }}
- {image: {{ .image | Quote }}, imageID: {{ .image | Quote }}, name: {{ .name | Quote }}, ready: true, started: true, restartCount: 0, state: {running: {startedAt: {{ $now | Quote }}}}}
{{ end }}
initContainerStatuses:
{{ range .spec.initContainers }}
- {image: {{ .image | Quote }}, imageID: {{ .image | Quote }}, name: {{ .name | Quote }}, ready: true, restartCount: 0, state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}}
{{ end }}
phase: Running
startTime: {{ $now | Quote }}
"""

POD_ENDS = """
{{ $now := Now }}
{{ $root := . }}
{{ $annotations := or .metadata.annotations dict }}
{{ $code := or ( index $annotations "CODE" ) "DEFAULT" }}
conditions:
- {lastTransitionTime: {{ $now | Quote }}, status: "False", type: Ready}
- {lastTransitionTime: {{ $now | Quote }}, status: "False", type: ContainersReady}
containerStatuses:
{{ range $index, $container := .spec.containers }}
{{ $started := ( index $root.status.containerStatuses $index ).state.running.startedAt }}
- {image: {{ $container.image | Quote }}, imageID: {{ $container.image | Quote }}, name: {{ $container.name | Quote }}, ready: false, started: false, restartCount: 0, state: {terminated: {exitCode: {{ $code }}, reason: {{ if eq $code "0" }}Completed{{ else }}Error{{ end }}, message: {{ or ( index $annotations "MESSAGE" ) "" | Quote }}, startedAt: {{ $started | Quote }}, finishedAt: {{ $now | Quote }}}}}
{{ end }}
phase: {{ if eq $code "0" }}Succeeded{{ else }}Failed{{ end }}
"""


def _on(name: str) -> str:
    return f'.metadata.annotations["{PREFIX}{name}"]'


OURS = _absent(_on("by-hand"))


def _node_ready() -> Object:
    # A node's capacity is set when it is made; only what a kubelet would say of itself is missing.
    return _stage("node-ready", "Node", [_not(READY, "True")], {"statusTemplate": NODE_CONDITIONS + "phase: Running\n"})


def _node_alive() -> Object:
    """The lease keeps the node alive; the status is written every ten minutes."""
    stage = _stage("node-alive", "Node", [_is(READY, "True")], {"statusTemplate": NODE_CONDITIONS})
    stage["spec"]["delay"] = {"durationMilliseconds": 600_000, "jitterDurationMilliseconds": 610_000}
    return stage


def _pod_runs() -> Object:
    return _stage("pod-runs", "Pod", [_absent(DELETED), _is(".status.phase", "Pending"), OURS], {"statusTemplate": POD_RUNS})


def _pod_ends() -> Object:
    conditions = [_absent(DELETED), _is(".status.phase", "Running"), _exists(_on("finish-after"))]
    return _stage("pod-ends", "Pod", conditions, {"statusTemplate": _ending("exit-code", "0", "message")}, _on("finish-after"))


def _pod_stopped() -> Object:
    """As a kubelet does it: the containers end and the status says how, before the pod goes."""
    conditions = [_exists(DELETED), _is(".status.phase", "Running"), OURS]
    return _stage(
        "pod-stopped", "Pod", conditions, {"statusTemplate": _ending("delete-exit-code", "143", "delete-message")}, _on("delete-after")
    )


def _pod_gone() -> Object:
    """Nothing runs any more: the pod goes when its finalizers do, which are their owners' affair."""
    return _stage("pod-gone", "Pod", [_exists(DELETED), _not(".status.phase", "Running"), OURS], {"delete": True})


def _ending(code: str, default: str, message: str) -> str:
    return POD_ENDS.replace("CODE", PREFIX + code).replace("DEFAULT", default).replace("MESSAGE", PREFIX + message)
