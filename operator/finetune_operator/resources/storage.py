"""Volumes and mounts of a trainer's pod: the run folder, the claims and Secrets that the job uses, and room for temporary files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from finetune_api import constants as c
from finetune_api.sources import claim_in, credentials, uris
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.runtime import AccessMode, ClusterFineTuneRuntimeSpec
from finetune_operator.model import Manifest
from finetune_operator.names import claim_name

Part = dict[str, Any]
_CONFIG_MOUNT: Final[Part] = {"name": "config", "mountPath": c.CONFIG_FILE.rpartition("/")[0], "readOnly": True}


@dataclass(frozen=True)
class MountedClaim:
    name: str
    """What `pvc://NAME/…` says."""
    claim_name: str
    read_only: bool


def offered_claims(job: FineTuneJob, runtime: ClusterFineTuneRuntimeSpec) -> dict[str, MountedClaim]:
    """Return the claims that a job may name. The job's own win over the runtime's, and are written to only for the output."""
    written = claim_in(job.spec.output.uri) if job.spec.output.uri is not None else None
    offered = {claim.name: MountedClaim(claim.name, claim.claim_name, claim.read_only) for claim in runtime.claims}
    offered |= {claim.name: MountedClaim(claim.name, claim.claim_name, claim.name != written) for claim in job.spec.references.claims}
    return offered


def used_claims(job: FineTuneJob, runtime: ClusterFineTuneRuntimeSpec) -> list[MountedClaim]:
    """Return the claims that the job's URIs name, by name."""
    offered = offered_claims(job, runtime)
    names = {claim_in(uri) for _, uri in uris(job.spec)}
    return [claim for name, claim in sorted(offered.items()) if name in names]


def offered_secrets(job: FineTuneJob, runtime: ClusterFineTuneRuntimeSpec) -> dict[str, str]:
    """Return the Secrets that a job may name: name → Secret. The job's own win over the runtime's."""
    offered = {secret.name: secret.secret_name for secret in runtime.secrets}
    return offered | {secret.name: secret.secret_name for secret in job.spec.references.secrets}


def used_secrets(job: FineTuneJob, runtime: ClusterFineTuneRuntimeSpec) -> dict[str, str]:
    """Return the Secrets that the job's fields `credentials` name: name → Secret."""
    named = {name for _, name in credentials(job.spec)}
    return {name: secret for name, secret in sorted(offered_secrets(job, runtime).items()) if name in named}


def run_claim(manifest: Manifest, runtime: ClusterFineTuneRuntimeSpec) -> str:
    """Return the claim on which the run folder lies."""
    return runtime.storage.claim_name or claim_name(manifest)


def is_shared(runtime: ClusterFineTuneRuntimeSpec) -> bool:
    """Whether pods on several nodes can have the run folder. Nothing is known of a claim that is there: then it is taken for one node's."""
    template = runtime.storage.claim_template
    return template is not None and template.access_mode is AccessMode.READ_WRITE_MANY


def to_read(manifest: Manifest, job: FineTuneJob, runtime: ClusterFineTuneRuntimeSpec, *, artifacts: bool) -> tuple[list[Part], list[Part]]:
    """Return volumes and mounts of a pod that only reads: the one claim that it reads from, read-only. artifacts: those, not the run folder.

    The mount is read-only and the volume is not: a driver may refuse to attach one disk for writing and for reading at the same time.
    """
    output = (
        offered_claims(job, runtime).get(claim_in(job.spec.output.uri) or "") if artifacts and job.spec.output.uri is not None else None
    )
    claim = output.claim_name if output is not None else run_claim(manifest, runtime)
    path = f"{c.CLAIMS_FOLDER}/{output.name}" if output is not None else c.RUN_STORAGE
    volumes: list[Part] = [
        _config_volume(),
        {"name": "read", "persistentVolumeClaim": {"claimName": claim}},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts: list[Part] = [_CONFIG_MOUNT, {"name": "read", "mountPath": path, "readOnly": True}, {"name": "tmp", "mountPath": "/tmp"}]
    return volumes, mounts


def volumes(manifest: Manifest, job: FineTuneJob, runtime: ClusterFineTuneRuntimeSpec, *, secrets: bool, reports: bool) -> list[Part]:
    """Return the pod's volumes. reports: what it needs to report its progress, a token of that audience and the authority to trust."""
    made: list[Part] = [
        _config_volume(),
        {"name": "run", "persistentVolumeClaim": {"claimName": run_claim(manifest, runtime)}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": runtime.shared_memory}},
    ]
    if reports:
        audience = {"audience": c.PROGRESS_AUDIENCE, "expirationSeconds": c.PROGRESS_TOKEN_SECONDS, "path": _file(c.PROGRESS_TOKEN_FILE)}
        trusted = {"path": _file(c.PROGRESS_CA_FILE), "fieldRef": {"fieldPath": f"metadata.annotations['{c.PROGRESS_CA_ANNOTATION}']"}}
        sources = [{"serviceAccountToken": audience}, {"downwardAPI": {"items": [trusted]}}]
        made.append({"name": "progress", "projected": {"sources": sources}})
    for index, claim in enumerate(used_claims(job, runtime)):
        made.append({"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim.claim_name, "readOnly": claim.read_only}})
    for index, secret in enumerate(used_secrets(job, runtime).values() if secrets else ()):
        token = {"secretName": secret, "items": [{"key": "token", "path": "token"}]}
        made.append({"name": f"secret-{index}", "secret": token})
    return made


def mounts(job: FineTuneJob, runtime: ClusterFineTuneRuntimeSpec, *, secrets: bool, reports: bool) -> list[Part]:
    """Return a container's mounts. Only what prepares gets the Secrets: it alone fetches."""
    made: list[Part] = [
        _CONFIG_MOUNT,
        {"name": "run", "mountPath": c.RUN_STORAGE},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    if reports:
        made.append({"name": "progress", "mountPath": c.PROGRESS_FOLDER, "readOnly": True})
    for index, claim in enumerate(used_claims(job, runtime)):
        made.append({"name": f"claim-{index}", "mountPath": f"{c.CLAIMS_FOLDER}/{claim.name}", "readOnly": claim.read_only})
    for index, name in enumerate(used_secrets(job, runtime) if secrets else ()):
        made.append({"name": f"secret-{index}", "mountPath": f"{c.SECRETS_FOLDER}/{name}", "readOnly": True})
    return made


def _config_volume() -> Part:
    """The trainer's config, out of the pod's annotation."""
    config = {"path": _file(c.CONFIG_FILE), "fieldRef": {"fieldPath": f"metadata.annotations['{c.TRAINER_CONFIG_ANNOTATION}']"}}
    return {"name": "config", "downwardAPI": {"items": [config]}}


def _file(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]
