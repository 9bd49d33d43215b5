"""The test cluster itself: its nodes take pods, its Jobs end as annotations say, its admission refuses, its audit log names who asked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster import Cluster, ClusterError
from tests.cluster.api import ApiError, Object
from tests.cluster.pods import await_value, finish


def job(name: str, annotations: dict[str, str], **container: Any) -> Object:
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {
                    "restartPolicy": "Never",
                    "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{"name": "main", "image": "none", "securityContext": restricted, **container}],
                },
            },
        },
    }


def condition(cluster: Cluster, namespace: str, name: str) -> str:
    """The type of the Job's final condition, awaited."""

    def final() -> str | None:
        found = cluster.api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")["status"].get("conditions", [])
        return next((item["type"] for item in found if item["type"] in ("Complete", "Failed") and item["status"] == "True"), None)

    return await_value(final, what=f"the end of the Job {name}")


def pod_of(cluster: Cluster, namespace: str, name: str, phase: str) -> Object:
    """The Job's pod, awaited in this phase."""
    path = f"/api/v1/namespaces/{namespace}/pods"

    def found() -> Object | None:
        return next(iter(cluster.api.items(path, labelSelector=f"job-name={name}", fieldSelector=f"status.phase={phase}")), None)

    return await_value(found, what=f"a pod of {name} in phase {phase}")


@pytest.mark.parametrize(("code", "ends"), [("0", "Complete"), ("10", "Failed")])
def test_pods_end_as_their_annotations_say(control_plane: Cluster, namespace: str, code: str, ends: str) -> None:
    annotations = {"test-cluster/finish-after": "0s", "test-cluster/exit-code": code, "test-cluster/message": '{"step": 3}'}
    manifest = job("annotated", annotations, resources={"limits": {"nvidia.com/gpu": "2"}})
    control_plane.api.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", manifest)
    assert condition(control_plane, namespace, "annotated") == ends
    pod = pod_of(control_plane, namespace, "annotated", "Succeeded" if code == "0" else "Failed")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (int(code), '{"step": 3}')
    assert pod["spec"]["nodeName"] in ("kwok-1", "kwok-2"), "the nodes with GPUs"


def test_a_pod_runs_until_the_test_ends_it(control_plane: Cluster, namespace: str) -> None:
    control_plane.api.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", job("by-hand", {}))
    finish(control_plane.api, pod_of(control_plane, namespace, "by-hand", "Running"), code=137, reason="OOMKilled")
    assert condition(control_plane, namespace, "by-hand") == "Failed"
    ended = pod_of(control_plane, namespace, "by-hand", "Failed")["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


def test_a_deleted_pod_ends_with_143_and_is_gone(control_plane: Cluster, namespace: str) -> None:
    control_plane.api.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", job("deleted", {}))
    pod = pod_of(control_plane, namespace, "deleted", "Running")
    path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}"
    codes = []
    control_plane.api.delete(path)

    def gone() -> bool:
        found = control_plane.api.find(path)
        if found:
            codes.extend(c["state"]["terminated"]["exitCode"] for c in found["status"]["containerStatuses"] if "terminated" in c["state"])
        return found is None

    await_value(gone, what="the end of the deleted pod", every=0.02)
    assert set(codes) <= {143}


def test_pod_security_is_enforced(control_plane: Cluster, namespace: str) -> None:
    pod = {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    with pytest.raises(ApiError, match="PodSecurity") as refused:
        control_plane.api.post(f"/api/v1/namespaces/{namespace}/pods", pod)
    assert refused.value.code == 403


def test_a_user_without_rights_is_refused_and_audited(control_plane: Cluster, namespace: str) -> None:
    mallory = control_plane.user("mallory")
    assert control_plane.kubectl("auth", "can-i", "list", "pods", "-n", namespace, user=control_plane.kubeconfig).strip() == "yes"
    with pytest.raises(ClusterError, match="mallory"):
        control_plane.kubectl("get", "secrets", "-n", namespace, user=mallory)
    events = [event for event in control_plane.audit() if event["user"]["username"] == "mallory" and "objectRef" in event]
    assert [(e["verb"], e["objectRef"]["resource"], e["responseStatus"]["code"]) for e in events if e["objectRef"].get("namespace")] == [
        ("list", "secrets", 403)
    ]


def test_a_service_account_is_itself(control_plane: Cluster, namespace: str) -> None:
    user = control_plane.service_account(namespace, "default")
    said = control_plane.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", user=user)
    assert said == f"system:serviceaccount:{namespace}:default"
    with pytest.raises(ClusterError, match="forbidden"):
        control_plane.kubectl("get", "nodes", user=user)


def test_the_python_client_is_the_administrator(control_plane: Cluster) -> None:
    from kubernetes.client import CoreV1Api

    with control_plane.client() as client:
        assert {node.metadata.name for node in CoreV1Api(client).list_node().items} >= {"kwok-1", "kwok-2", "kwok-3"}


def test_a_claim_is_bound_where_its_first_pod_goes(control_plane: Cluster, namespace: str) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    control_plane.api.post(path, {"metadata": {"name": "late"}, "spec": spec})
    assert control_plane.api.get(f"{path}/late")["status"]["phase"] == "Pending"
    manifest = job("claiming", {})
    manifest["spec"]["template"]["spec"]["volumes"] = [{"name": "claim", "persistentVolumeClaim": {"claimName": "late"}}]
    control_plane.api.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", manifest)
    pod_of(control_plane, namespace, "claiming", "Running")
    assert control_plane.api.get(f"{path}/late")["status"]["phase"] == "Bound"
