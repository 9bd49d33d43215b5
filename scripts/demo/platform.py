"""What a platform team does once: the operator by its chart, a runtime, and a namespace whose claim holds the model and the rows."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.demo.place import Place
from scripts.demo_assets import ROOT
from scripts.render_chart import NAMESPACE, objects, rendered
from tests.cluster.errors import ClusterError
from tests.cluster.pods import await_value, is_established

TEAM: Final = "finetune-demo"
CLAIM: Final = "finetune-demo"
"""The claim that the example's spec.references names."""
LOADER: Final = "loader"
RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}
USER: Final = 65532
PATIENCE: Final = "180s"
PROGRESS: Final = "10.96.0.50"
"""Address of the operator's Service on the demo's own cluster."""


def install(place: Place) -> None:
    """Apply the CRDs, the chart's objects, the namespaces and the runtime; wait until the operator is ready."""
    place.say("kubectl apply: CRDs, the operator's chart, the runtime, the namespace")
    place.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    for definition in sorted((ROOT / "crds").glob("*.yaml")):
        name = yaml.safe_load(definition.read_text())["metadata"]["name"]
        await_value(partial(_served, place, name), what=f"{name} being established")
    repository, _, digest = place.operator.partition("@")
    values: dict[str, Any] = {"image": {"repository": repository, "digest": digest, "pullPolicy": "IfNotPresent"}}
    if place.cluster is not None:  # it has no DNS: pods report their progress to an address
        values["progress"] = {"clusterIP": PROGRESS}
    place.apply(_namespace(NAMESPACE), *objects(rendered(values, "--skip-tests")))
    place.apply(_namespace(TEAM), runtime(place.trainer), _claim())
    place.kubectl("rollout", "status", "deployment/finetune-operator", "-n", NAMESPACE, f"--timeout={PATIENCE}")
    place.say("the operator is ready")


def _served(place: Place, definition: str) -> bool:
    return is_established(place.get("crd", definition))


def runtime(image: str) -> dict[str, Any]:
    """The demo's runtime: on the CPU, two threads, a claim for each job."""
    role = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "6Gi"}}
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "ClusterFineTuneRuntime",
        "metadata": {"name": "demo", "annotations": {"finetune.dev/default-runtime": "true"}},
        "spec": {
            "image": image,
            "gpus": 0,
            "threads": min(os.cpu_count() or 1, 8),
            "resources": {"prepare": role, "train": role, "report": role},
            "sharedMemory": "64Mi",
            "storage": {"claimTemplate": {"size": "10Gi"}},
        },
    }


def give_data(place: Place, assets: os.PathLike[str]) -> None:
    """Copy the model and the rows into the claim, by a pod that unpacks them; nothing where they are there."""
    if place.get("pod", LOADER, "-n", TEAM) is None:
        place.apply(_loader(place.trainer))
    place.kubectl("wait", "--for=condition=Ready", f"--timeout={PATIENCE}", f"pod/{LOADER}", "-n", TEAM)
    inside = ["exec", "-i", "-n", TEAM, LOADER, "--"]
    if place.kubectl(*inside, "sh", "-c", "test -e /data/.complete && echo there || true").strip() == "there":
        place.say("the claim holds the data already")
        return
    place.say("copying the model and the text into the claim")
    command = place.command(*inside, "sh", "-c", "tar -x -C /data --no-same-owner && touch /data/.complete")
    pack = ["tar", "-c", "-C", str(Path(assets)), "models/smollm2-135m-instruct", "data"]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
        done = subprocess.run(command, stdin=packed.stdout, capture_output=True, text=True, check=False)
    if packed.returncode or done.returncode:
        raise ClusterError(f"the data could not be copied into the claim {CLAIM}: {done.stderr.strip()}")


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}


def _claim() -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM, "namespace": TEAM}, "spec": spec}


def _loader(image: str) -> dict[str, Any]:
    """A pod that only waits, for as long as the demo's namespace is there: the claim is filled through it."""
    container = {
        "name": LOADER,
        "image": image,
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": LOADER, "namespace": TEAM},
        "spec": {
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}],
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "fsGroup": USER, "seccompProfile": {"type": "RuntimeDefault"}},
        },
    }
