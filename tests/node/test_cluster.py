"""The test cluster's nodes: restricted pods run, log, write messages and claims, are stopped; a lost node's container goes on."""

from __future__ import annotations

from typing import Any

from tests.cluster import Cluster
from tests.cluster.api import Object
from tests.cluster.node import ready
from tests.cluster.pods import await_value, pod_path

RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
USER = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}


def run(cluster: Cluster, namespace: str, image: str, script: str, *, claim: str = "", **spec: Any) -> Object:
    """A restricted pod that runs this script, with its claim at /claim."""
    limits = spec.pop("limits", {"nvidia.com/gpu": "1"})
    container = {"name": "main", "image": image, "args": [script], "securityContext": RESTRICTED, "resources": {"limits": limits}}
    pod_spec: Object = {"restartPolicy": "Never", "securityContext": USER, "automountServiceAccountToken": False, "containers": [container]}
    if claim:
        container["volumeMounts"] = [{"name": "claim", "mountPath": "/claim"}]
        pod_spec["volumes"] = [{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}]
    body = {"metadata": {"generateName": "shell-"}, "spec": {**pod_spec, **spec}}
    return cluster.api.post(f"/api/v1/namespaces/{namespace}/pods", body)


def claim(cluster: Cluster, namespace: str, storage_class: str, size: str) -> str:
    spec = {"storageClassName": storage_class, "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}}
    body = {"metadata": {"name": storage_class}, "spec": spec}
    cluster.api.post(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", body)
    return storage_class


def ended(cluster: Cluster, pod: Object) -> Object:
    """The state `terminated` of its container, awaited."""

    def found() -> Object | None:
        statuses = cluster.api.get(pod_path(pod))["status"].get("containerStatuses", [])
        return next((status["state"]["terminated"] for status in statuses if "terminated" in status["state"]), None)

    return await_value(found, what=f"the end of {pod['metadata']['name']}")


def running(cluster: Cluster, pod: Object) -> Object:
    """The pod, awaited in phase Running."""

    def found() -> Object | None:
        now = cluster.api.get(pod_path(pod))
        return now if now["status"]["phase"] == "Running" else None

    return await_value(found, what=f"{pod['metadata']['name']} running")


def test_a_restricted_pod_runs_logs_and_ends_with_its_code_and_message(node_cluster: Cluster, namespace: str, shell: str) -> None:
    script = 'echo "user $(id -u)"; touch /here || echo "read-only"; nc -w 5 10.96.0.1 443 < /dev/null && echo "API reached"; '
    pod = run(node_cluster, namespace, shell, script + "echo '{\"step\": 3}' > /dev/termination-log; exit 21")
    state = ended(node_cluster, pod)
    assert (state["exitCode"], state["message"].strip()) == (21, '{"step": 3}')
    log = node_cluster.api.text(f"{pod_path(pod)}/log")
    assert [line for line in log.splitlines() if not line.startswith("touch")] == ["user 65532", "read-only", "API reached"]


def test_a_deleted_pod_is_told_to_stop_and_is_gone(node_cluster: Cluster, namespace: str, shell: str) -> None:
    script = "trap 'exit 75' TERM; echo ready; sleep 1000 & wait"
    pod = running(node_cluster, run(node_cluster, namespace, shell, script, terminationGracePeriodSeconds=600))
    await_value(lambda: "ready" in node_cluster.api.text(f"{pod_path(pod)}/log"), what="a pod that listens")
    node_cluster.api.delete(pod_path(pod))
    await_value(lambda: node_cluster.api.find(pod_path(pod)) is None, what="the end of the deleted pod, long before its grace is over")


def test_memory_above_the_limit_is_the_kernels_kill(node_cluster: Cluster, namespace: str, shell: str) -> None:
    pod = run(node_cluster, namespace, shell, "tail /dev/zero", limits={"memory": "16Mi"})
    state = ended(node_cluster, pod)
    assert (state["exitCode"], state["reason"]) == (137, "OOMKilled")


def test_a_volume_is_written_through_its_group_and_seen_by_the_other_node(node_cluster: Cluster, namespace: str, shell: str) -> None:
    name = claim(node_cluster, namespace, "shared", "1Gi")
    for node, script in (("node-1", "echo text > /claim/file"), ("node-2", "grep text /claim/file")):
        pod = run(node_cluster, namespace, shell, script, claim=name, nodeSelector={"kubernetes.io/hostname": node})
        assert ended(node_cluster, pod)["exitCode"] == 0, node


def test_a_claim_can_be_full(node_cluster: Cluster, namespace: str, shell: str) -> None:
    name = claim(node_cluster, namespace, "tmpfs", "1Mi")
    pod = run(node_cluster, namespace, shell, "dd if=/dev/zero of=/claim/file bs=1M count=2", claim=name)
    assert ended(node_cluster, pod)["exitCode"] == 1
    assert "No space left on device" in node_cluster.api.text(f"{pod_path(pod)}/log")


def test_a_lost_node_s_container_goes_on_and_is_there_when_the_kubelet_returns(node_cluster: Cluster, namespace: str, shell: str) -> None:
    pod = running(node_cluster, run(node_cluster, namespace, shell, "while true; do date; sleep 1; done"))
    node = node_cluster.node(pod["spec"]["nodeName"])
    path = f"/api/v1/nodes/{node.name}"
    before = node.containers()
    node.kill_kubelet()
    await_value(lambda: not ready(node_cluster.api.get(path)), what=f"{node.name} being NotReady", timeout=90)
    assert set(before) <= set(node.containers())
    node.start_kubelet()
    found = node_cluster.api.get(path)
    assert found["status"]["allocatable"]["nvidia.com/gpu"] == "2"
    assert running(node_cluster, pod)["status"]["containerStatuses"][0]["restartCount"] == 0


def test_the_api_server_comes_back_after_a_while(node_cluster: Cluster, namespace: str, shell: str) -> None:
    pod = running(node_cluster, run(node_cluster, namespace, shell, "sleep 1000"))
    node_cluster.processes.kill("kube-apiserver")
    node_cluster.processes.again("kube-apiserver")
    node_cluster.await_api_server()
    assert node_cluster.api.get(pod_path(pod))["status"]["phase"] == "Running"
