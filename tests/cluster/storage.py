"""Volumes as folders of this machine: StorageClasses, and the PersistentVolume that a claim gets. Pure.

| class | binds | a volume is |
| --- | --- | --- |
| `local` (default) | to the node of the first pod (WaitForFirstConsumer) | a folder that only that node has |
| `local-immediate` | at once, to the first node | a folder that only that node has |
| `shared` | at once | one folder for all nodes: what ReadWriteMany promises |
| `tmpfs` | to the node of the first pod | memory, of the claim's size and no byte more: how a claim gets full |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.api import Object

PROVISIONER = "test-cluster/folders"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
LATE = "WaitForFirstConsumer"
HOSTNAME = "kubernetes.io/hostname"


def classes() -> list[Object]:
    return [
        storage_class("local", LATE, {}, default=True),
        storage_class("local-immediate", "Immediate", {}),
        storage_class("shared", "Immediate", {"shared": "true"}),
        storage_class("tmpfs", LATE, {"medium": "tmpfs"}),
    ]


def storage_class(name: str, binding: str, parameters: Mapping[str, str], *, default: bool = False) -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": str(default).lower()}},
        "provisioner": PROVISIONER,
        "parameters": dict(parameters),
        "reclaimPolicy": "Delete",
        "volumeBindingMode": binding,
    }


def waits(claim: Object) -> bool:
    """Whether this claim has no volume yet."""
    return not claim["spec"].get("volumeName") and claim["status"].get("phase") == "Pending" and bool(claim["spec"].get("storageClassName"))


def volume(claim: Object, storage: Object, nodes: Sequence[Object], folder: Path) -> Object | None:
    """The volume for a claim of this class; None where it is not ours to make, or a pod must come first."""
    selected = claim["metadata"].get("annotations", {}).get(SELECTED_NODE)
    if storage["provisioner"] != PROVISIONER or not nodes or (storage["volumeBindingMode"] == LATE and not selected):
        return None
    name = f"pvc-{claim['metadata']['uid']}"
    host = next((n["metadata"]["labels"][HOSTNAME] for n in nodes if selected in (None, n["metadata"]["name"])), None)
    if host is None:
        return None
    shared = storage.get("parameters", {}).get("shared") == "true"
    where: dict[str, Any] = {"key": HOSTNAME, "operator": "Exists"} if shared else {"key": HOSTNAME, "operator": "In", "values": [host]}
    reference = {key: claim["metadata"][key] for key in ("namespace", "name", "uid")}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **reference},
            "persistentVolumeReclaimPolicy": storage.get("reclaimPolicy", "Delete"),
            "storageClassName": storage["metadata"]["name"],
            "local": {"path": str(folder / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [where]}]}},
        },
    }


def released(found: Object) -> bool:
    """Whether this volume is ours to remove: its claim is gone, and nobody asked to keep it."""
    ours = found["metadata"].get("annotations", {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
    return bool(ours and found["status"].get("phase") == "Released" and found["spec"]["persistentVolumeReclaimPolicy"] == "Delete")


def bytes_of(quantity: str) -> int:
    """`1Gi` or `500M` or `1024`, in bytes."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    for unit, factor in units.items():
        if quantity.endswith(unit):
            return int(float(quantity.removesuffix(unit)) * factor)
    return int(quantity)
