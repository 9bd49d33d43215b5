"""The kinds of objects that the operator deals with: where they live in the API, and how they tell whose they are."""

from __future__ import annotations

from typing import Any, NamedTuple

from finetune_api import constants as c
from finetune_operator.model import Key, Manifest

MANAGED_SELECTOR = f"{c.MANAGED_LABEL}=true"


class Kind(NamedTuple):
    """A kind of object, and the path under which the API server serves it."""

    api_version: str
    name: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of a collection, an object, or its subresource; without a namespace, of all namespaces."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace is not None else ""
        return "/".join(part for part in (f"{root}{scope}/{self.plural}", name, subresource) if part is not None)


FINE_TUNE_JOB = Kind(c.API_VERSION, c.KIND, c.PLURAL)
RUNTIME = Kind(c.API_VERSION, c.RUNTIME_KIND, c.RUNTIME_PLURAL, namespaced=False)
JOB = Kind("batch/v1", "Job", "jobs")
POD = Kind("v1", "Pod", "pods")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
NODE = Kind("v1", "Node", "nodes", namespaced=False)
SECRET = Kind("v1", "Secret", "secrets")  # one, by its name, in the operator's own namespace
SEEN_EVENT = Kind("v1", "Event", "events")  # read by involvedObject
OWN_EVENT = Kind("events.k8s.io/v1", "Event", "events")  # written: the same storage, the newer form

BY_NAME = {kind.name: kind for kind in (FINE_TUNE_JOB, RUNTIME, JOB, POD, CLAIM)}


def key_of(manifest: Manifest) -> Key:
    """Namespace and name of a FineTuneJob."""
    return Key(manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def uid_of(manifest: Manifest) -> str:
    uid: str = manifest["metadata"]["uid"]
    return uid


def version_of(manifest: Manifest) -> int:
    """The resourceVersion as a number: of one kind, the greater is the newer (KEP 5504)."""
    return int(manifest["metadata"]["resourceVersion"])


def controller_of(manifest: Manifest) -> str | None:
    """The uid of the object that controls this one, None where nothing does."""
    owners: list[dict[str, Any]] = manifest["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def job_uid_label(manifest: Manifest) -> str | None:
    """The FineTuneJob's uid as the label says it: good for finding, never for believing."""
    labels: dict[str, str] = manifest["metadata"].get("labels") or {}
    return labels.get(c.JOB_UID_LABEL)


def is_terminating(manifest: Manifest) -> bool:
    return manifest["metadata"].get("deletionTimestamp") is not None
