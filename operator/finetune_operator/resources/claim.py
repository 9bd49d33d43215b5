"""The claim for a job's run folder, where the runtime has a claim made for each job."""

from __future__ import annotations

from typing import Any

from finetune_api.v1alpha1.fine_tune_job import FineTuneJob, Retain
from finetune_api.v1alpha1.runtime import ClaimTemplate
from finetune_operator.model import Manifest
from finetune_operator.names import claim_name
from finetune_operator.resources.owner import labels, owner_reference


def keeps_claim(job: FineTuneJob) -> bool:
    """Whether the claim must outlive the job: its artifacts lie there, and they are to be kept."""
    return job.spec.output.uri is None and job.spec.output.retain is Retain.ALWAYS


def build_claim(manifest: Manifest, job: FineTuneJob, template: ClaimTemplate) -> dict[str, Any]:
    """Return the PersistentVolumeClaim. A kept one has no owner, and is known by the label with the job's uid."""
    owners = {} if keeps_claim(job) else {"ownerReferences": [owner_reference(manifest)]}
    storage_class = {"storageClassName": template.class_name} if template.class_name is not None else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(manifest),
            "namespace": manifest["metadata"]["namespace"],
            "labels": labels(manifest),
            **owners,
        },
        "spec": {
            "accessModes": [template.access_mode.value],
            "resources": {"requests": {"storage": template.size}},
            **storage_class,
        },
    }
