"""What a platform team sets up: the chart's objects with the operator's pod, runtimes, and a namespace whose claim holds a tiny model and rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts.render_chart import NAMESPACE, objects, rendered
from tests.apiserver.installation import apply, install_crds, namespace
from tests.cluster import Cluster
from tests.cluster.api import Object
from tests.cluster.images import Image, Images
from tests.cluster.pods import await_value
from tests.examples.tiny_demo import make_tiny_demo

TEAM: Final = "team-a"
ASSETS: Final = "assets"
"""The claim with the model and the rows, by this name in every job."""
RUNTIME: Final = "tiny"
VICTIM: Final = {"test/victim": "true"}
"""Label of the node that a pod of the runtime `lost` prefers."""
_NEAR: Final = {"weight": 100, "preference": {"matchExpressions": [{"key": next(iter(VICTIM)), "operator": "Exists"}]}}
PREFERS: Final = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [_NEAR]}}
"""The affinity of pods that are to be there."""
PROGRESS: Final = "10.96.0.50"
"""Where pods report their progress: they have no DNS here."""
PATIENCE: Final = 480
"""Seconds that anything with a pod may take while the machine has other work; by itself it takes some ten."""


@dataclass(frozen=True)
class Platform:
    """A cluster with the operator, and one team's namespace."""

    cluster: Cluster
    images: Images

    def operator_pod(self) -> Object | None:
        """The operator's pod that is ready; None where there is none."""
        pods = self.cluster.api.items(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector="app.kubernetes.io/name=finetune-operator")
        return next((pod for pod in pods if _is_ready(pod) and not pod["metadata"].get("deletionTimestamp")), None)

    def await_order(self) -> None:
        """Until every node is ready, and the operator."""
        self.cluster.await_api_server()
        for node in self.cluster.nodes:
            node.await_ready()
        self.await_operator()

    def await_operator(self) -> Object:
        return await_value(self.operator_pod, what="an operator that is ready", timeout=PATIENCE, every=0.5)

    def volume(self, claim: str, namespace: str = TEAM) -> Path:
        """The folder on this machine that a bound claim is."""
        api = self.cluster.api
        found = await_value(
            lambda: api.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}")["spec"].get("volumeName"),
            what=f"a volume for claim {claim}",
        )
        return Path(api.get(f"/api/v1/persistentvolumes/{found}")["spec"]["local"]["path"])


def install(cluster: Cluster, images: Images) -> Platform:
    """Apply everything as a platform team does, and wait until the operator is ready."""
    platform = Platform(cluster, images)
    api = cluster.api
    install_crds(api)
    apply(api, namespace(NAMESPACE))
    values = {"image": image_values(images.operator), "progress": {"clusterIP": PROGRESS}}
    for document in objects(rendered(values, "--skip-tests")):
        apply(api, document)
    apply(api, namespace(TEAM))
    for each in runtimes(images.trainer):
        apply(api, each)
    apply(api, claim(ASSETS, "shared", "1Gi"))
    fill(platform.volume(ASSETS))
    platform.await_operator()
    return platform


def image_values(image: Image) -> Mapping[str, str]:
    repository, _, digest = image.reference.partition("@")
    return {"repository": repository, "digest": digest, "pullPolicy": "Never"}


def runtimes(trainer: Image) -> list[Object]:
    """One by default; `lost` gives up a silent node soon; `local` has volumes that only the node of their first pod has."""
    return [
        runtime(RUNTIME, trainer, default=True),
        runtime("lost", trainer, nodeLostAfterSeconds=10, affinity=PREFERS),
        runtime("local", trainer, storage={"claimTemplate": {"className": "local", "accessMode": "ReadWriteOnce", "size": "1Gi"}}),
    ]


def runtime(name: str, trainer: Image, *, default: bool = False, **spec: Any) -> Object:
    """Its pods take a GPU of a node, and train on the CPU: containers see no device."""
    role = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "ClusterFineTuneRuntime",
        "metadata": {"name": name, "annotations": {"finetune.dev/default-runtime": "true"} if default else {}},
        "spec": {
            "image": trainer.reference,
            "imagePullPolicy": "Never",
            "threads": 1,
            "sharedMemory": "64Mi",
            "resources": {"prepare": role, "train": role, "report": role},
            "storage": {"claimTemplate": {"className": "shared", "accessMode": "ReadWriteMany", "size": "1Gi"}},
            **spec,
        },
    }


def claim(name: str, storage_class: str, size: str, namespace: str = TEAM) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"storageClassName": storage_class, "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}},
    }


def fill(folder: Path) -> None:
    """Write the model and the rows, for every user to read."""
    shutil.rmtree(folder / "demo", ignore_errors=True)
    make_tiny_demo(folder / "demo")
    for path in (folder / "demo").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def write_manifest(folder: Path, document: Mapping[str, Any]) -> None:
    """Put a job beside its data, for `finetune run`."""
    path = folder / "job.json"
    path.write_text(json.dumps(document))
    path.chmod(0o644)


def _is_ready(pod: Object) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))
