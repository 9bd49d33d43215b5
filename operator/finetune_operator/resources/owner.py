"""What every child carries: whose it is, for the machine by ownerReference, for people by labels."""

from __future__ import annotations

from typing import Any

from finetune_api import constants as c
from finetune_operator.model import Manifest


def owner_reference(job: Manifest) -> dict[str, Any]:
    """Name the FineTuneJob as controller. blockOwnerDeletion is left out: it would need a right on finalizers (OpenShift)."""
    metadata = job["metadata"]
    return {"apiVersion": c.API_VERSION, "kind": c.KIND, "name": metadata["name"], "uid": metadata["uid"], "controller": True}


def labels(job: Manifest) -> dict[str, str]:
    """Return the labels of every child; the operator's watches select the first."""
    metadata = job["metadata"]
    return {c.MANAGED_LABEL: "true", c.JOB_UID_LABEL: metadata["uid"], c.JOB_LABEL: metadata["name"][:63].rstrip("-.")}
