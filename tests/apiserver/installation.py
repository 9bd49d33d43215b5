"""Installs the chart on a real API server, as its objects render, and runs this checkout's operator under the chart's own rights.

The Deployment's pod is not started; its process is, with a token of its service account. So what the operator may do in a test is what
the chart gives it, and nothing more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from finetune_api import constants as c
from scripts.render_chart import NAMESPACE, crd_copies, objects, rendered
from tests.cluster import Cluster
from tests.cluster.api import Api, ApiError
from tests.cluster.pods import await_served

Document = dict[str, Any]
ACCOUNT: Final = "finetune-operator"
USERNAME: Final = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
JOBS: Final = f"/apis/{c.API_VERSION}/namespaces/{{}}/{c.PLURAL}"

_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
_ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
_PATHS: Final[Mapping[str, str]] = {
    "Namespace": "/api/v1/namespaces",
    "Node": "/api/v1/nodes",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ClusterRole": f"{_RBAC}/clusterroles",
    "ClusterRoleBinding": f"{_RBAC}/clusterrolebindings",
    "ValidatingAdmissionPolicy": f"{_ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{_ADMISSION}/validatingadmissionpolicybindings",
    "ClusterFineTuneRuntime": f"/apis/{c.API_VERSION}/clusterfinetuneruntimes",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "ResourceQuota": "/api/v1/namespaces/{}/resourcequotas",
    "Service": "/api/v1/namespaces/{}/services",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Role": f"{_RBAC}/namespaces/{{}}/roles",
    "RoleBinding": f"{_RBAC}/namespaces/{{}}/rolebindings",
    "ServiceMonitor": "/apis/monitoring.coreos.com/v1/namespaces/{}/servicemonitors",
    "PodMonitor": "/apis/monitoring.coreos.com/v1/namespaces/{}/podmonitors",
    "PrometheusRule": "/apis/monitoring.coreos.com/v1/namespaces/{}/prometheusrules",
    "FineTuneJob": JOBS,
}


def path_of(document: Mapping[str, Any]) -> str:
    """Return the path of an object's collection. Raises KeyError for a kind that no test uses."""
    return _PATHS[document["kind"]].format(document["metadata"].get("namespace", ""))


def apply(api: Api, document: Mapping[str, Any], **query: str) -> Document:
    """Server-side apply, refusing what no schema knows."""
    path = f"{path_of(document)}/{document['metadata']['name']}"
    return api.patch(path, document, how="apply", fieldValidation="Strict", **query)


def namespace(name: str, *, restricted: bool = True) -> Document:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def install_crds(api: Api) -> None:
    """The chart's CRDs, as `kubectl apply --server-side --force-conflicts` does it; waits until they are served."""
    for content in crd_copies().values():
        (document,) = objects(content.decode())
        apply(api, document)
        await_served(api, document["metadata"]["name"])


def install(api: Api, values: Mapping[str, Any] | None = None) -> list[Document]:
    """Everything of the chart but its test pod and its Deployment's pod; returns what was rendered."""
    install_crds(api)
    apply(api, namespace(NAMESPACE))
    documents = [d for d in objects(rendered(values or {})) if "helm.sh/hook" not in d["metadata"].get("annotations", {})]
    for document in documents:
        apply(api, {**document, "spec": {**document["spec"], "replicas": 0}} if document["kind"] == "Deployment" else document)
    return documents


def uninstall(api: Api, documents: Iterable[Document]) -> None:
    """As `helm uninstall` does it: CRDs stay."""
    for document in documents:
        api.delete(f"{path_of(document)}/{document['metadata']['name']}")


@contextlib.contextmanager
def running_operator(cluster: Cluster, log: Path, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """This checkout's operator as the chart's service account, in the chart's namespace; stopped by SIGTERM at the end, as by a kubelet.

    Raises:
        AssertionError: It ended by itself, or did not end well; with the end of its log.
    """
    kubeconfig = cluster.service_account(NAMESPACE, ACCOUNT)
    command = [
        sys.executable,
        "-m",
        "finetune_operator",
        "--kubeconfig",
        str(kubeconfig),
        "--probes-port",
        "0",
        "--metrics-port",
        "0",
        *flags,
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FINETUNE_", "KUBE"))}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=kept) as process:
        try:
            yield process
            assert process.poll() is None, f"the operator ended by itself:\n{tail(log)}"
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=30)
        assert code == 0, f"the operator ended with {code}:\n{tail(log)}"


def tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-4000:]


def rules_of(documents: Iterable[Document], name: str = ACCOUNT) -> list[Mapping[str, list[str]]]:
    """The rules of the roles of this name, and of its progress."""
    names = (name, f"{name}-progress")
    return [rule for d in documents if d["kind"] in ("ClusterRole", "Role") and d["metadata"]["name"] in names for rule in d["rules"]]


def refusal(error: ApiError) -> str:
    """What a user would read."""
    return f"{error.code} {error.status.get('message', '')}"
