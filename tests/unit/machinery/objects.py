"""Objects as the API server sends them, as small as the machinery needs them."""

from __future__ import annotations

from typing import Any

from finetune_api import constants as c

Body = dict[str, Any]


def fine_tune_job(
    name: str = "support",
    *,
    uid: str = "j1",
    version: int = 1,
    namespace: str = "team-a",
    status: Body | None = None,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> Body:
    metadata: Body = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(version), "generation": 1}
    if annotations:
        metadata["annotations"] = annotations
    body: Body = {"apiVersion": c.API_VERSION, "kind": c.KIND, "metadata": metadata, "spec": spec}
    return body if status is None else {**body, "status": status}


def finished(*, generation: int = 1) -> Body:
    return {"observedGeneration": generation, "conditions": [{"type": "Finished", "status": "True"}]}


def child(
    kind: str,
    name: str,
    *,
    uid: str,
    owner: str | None,
    label: str | None = None,
    version: int = 1,
    namespace: str = "team-a",
    status: Body | None = None,
    terminating: bool = False,
    annotations: dict[str, str] | None = None,
    managed_fields: bool = False,
) -> Body:
    metadata: Body = {
        "name": name,
        "namespace": namespace,
        "uid": uid,
        "resourceVersion": str(version),
        "labels": {c.MANAGED_LABEL: "true"},
    }
    if label is not None:
        metadata["labels"][c.JOB_UID_LABEL] = label
    if owner is not None:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    if terminating:
        metadata["deletionTimestamp"] = "2026-11-22T12:00:00Z"
    if annotations:
        metadata["annotations"] = annotations
    if managed_fields:
        metadata["managedFields"] = [{"manager": "kubectl"}]
    api_version = "batch/v1" if kind == "Job" else "v1"
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": {}, "status": status or {}}


def batch_job(name: str = "ft-support-1", *, uid: str = "b1", owner: str | None = "j1", label: str | None = "j1", **rest: Any) -> Body:
    return child("Job", name, uid=uid, owner=owner, label=label, **rest)


def pod(name: str = "ft-support-1-x", *, uid: str = "p1", owner: str | None = "b1", label: str | None = "j1", **rest: Any) -> Body:
    return child("Pod", name, uid=uid, owner=owner, label=label, **rest)


def claim(name: str = "ft-support-j1", *, uid: str = "c1", owner: str | None = None, label: str | None = "j1", **rest: Any) -> Body:
    return child("PersistentVolumeClaim", name, uid=uid, owner=owner, label=label, **rest)
