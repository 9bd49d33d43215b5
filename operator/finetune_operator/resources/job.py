"""The batch/v1 Job of one attempt at one segment: Pod Security restricted, no token, no rights, the trainer's config in an annotation.

A Job is made once and never changed. Its podFailurePolicy has three rules, in this order: what the cluster did to a pod is ignored (the Job
makes another pod), a trainer that saved and stopped is ignored too, and what a repetition can't mend fails the Job at once. Any other
failure fails the Job through backoffLimit 0, and the operator decides about the next attempt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from finetune_api import constants as c
from finetune_api.plan import Runtime
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.runtime import ClusterFineTuneRuntimeSpec, Prepare, RoleResources
from finetune_api.wire import PodConfig, SegmentKind, TrainerConfig
from finetune_operator import names
from finetune_operator.model import Endpoint, Manifest
from finetune_operator.resources import storage
from finetune_operator.resources.owner import labels, owner_reference
from finetune_operator.snapshot import RuntimeSnapshot

Part = dict[str, Any]
TRAINER: Final = "trainer"
METRICS: Final = "metrics"
"""The port's name, by which the chart's PodMonitor finds it."""
PREPARE: Final = "prepare"
"""The init container that prepares, where the runtime says inTrainPod."""
FAILURE_RULES: Final[list[Part]] = [
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [int(c.ExitCode.STOPPED)]}},
    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": sorted(map(int, c.PERMANENT_EXIT_CODES))}},
]


@dataclass(frozen=True)
class JobParts:
    """What every Job of a FineTuneJob is built from."""

    manifest: Manifest
    """The FineTuneJob as the API server has it."""
    job: FineTuneJob
    snapshot: RuntimeSnapshot
    endpoint: Endpoint | None = None
    """Where its pods report their progress; None: to nobody."""


def plan_runtime(parts: JobParts) -> Runtime:
    """Return what the plan is told about a pod: where things are mounted, threads, grace."""
    spec, metadata = parts.snapshot.spec, parts.manifest["metadata"]
    return Runtime(
        run_folder=f"{c.RUN_STORAGE}/{names.run_folder(metadata['namespace'], metadata['name'], metadata['uid'])}",
        base_folder=c.RUN_STORAGE,
        mounts={claim.name: f"{c.CLAIMS_FOLDER}/{claim.name}" for claim in storage.used_claims(parts.job, spec)},
        secret_files={name: f"{c.SECRETS_FOLDER}/{name}/token" for name in storage.used_secrets(parts.job, spec)},
        threads=parts.snapshot.threads,
        grace_seconds=spec.termination_grace_period_seconds,
        stalled_after_seconds=spec.stalled_after_seconds,
        uid=metadata["uid"],
    )


def build_job(parts: JobParts, config: TrainerConfig, number: int) -> Part:
    """Return the Job of an attempt at a segment."""
    runtime, segment = parts.snapshot.spec, config.segment
    if segment.kind is SegmentKind.PREPARE:
        container = _container(parts, TRAINER, "prepare", runtime.resources.prepare, secrets=True)
        return _job(parts, config, segment.index, number, {"containers": [container]}, placed=not storage.is_shared(runtime))
    train = _container(parts, TRAINER, "train", runtime.resources.train, gpus=gpus_of(config, runtime))
    prepared: Part = {}
    if runtime.prepare is Prepare.IN_TRAIN_POD and segment.index == 1:
        prepared = {"initContainers": [_container(parts, PREPARE, "prepare", runtime.resources.prepare, secrets=True)]}
    return _job(parts, config, segment.index, number, {**prepared, "containers": [train]}, placed=True)


def build_report_job(parts: JobParts, config: TrainerConfig, number: int) -> Part:
    """Return the Job whose containers tell the result page by page; `config` is the last segment's."""
    parts, runtime = replace(parts, endpoint=None), parts.snapshot.spec  # it has no progress
    pages = [
        _container(parts, f"page-{page}", names.REPORT, runtime.resources.report, more=("--page", str(page)))
        for page in range(c.REPORT_PAGES)
    ]
    return _job(parts, config, None, number, {"containers": pages}, placed=not storage.is_shared(runtime))


def pod_config(parts: JobParts, number: int) -> PodConfig:
    """Return what only a trainer in a pod is told."""
    metadata = parts.manifest["metadata"]
    folder = names.run_folder(metadata["namespace"], metadata["name"], metadata["uid"])
    return PodConfig(
        attempt=number,
        run_uri=f"pvc://{storage.run_claim(parts.manifest, parts.snapshot.spec)}/{folder}",
        image_digest=parts.snapshot.spec.image.rpartition("@")[2],
    )


def gpus_of(config: TrainerConfig, runtime: ClusterFineTuneRuntimeSpec) -> int:
    """Return the GPUs of a segment's pod: none to prepare, else what its stages ask for, else what the runtime gives."""
    if config.segment.kind is SegmentKind.PREPARE:
        return 0
    return runtime.gpus if config.segment.gpus is None else config.segment.gpus


def _job(parts: JobParts, config: TrainerConfig, segment: int | None, number: int, containers: Part, *, placed: bool) -> Part:
    metadata, runtime = parts.manifest["metadata"], parts.snapshot.spec
    told = config.model_copy(update={"pod": pod_config(parts, number)})
    ours = {c.SEGMENT_LABEL: names.REPORT if segment is None else str(segment), c.ATTEMPT_LABEL: str(number)}
    fetches = any(container["args"][0] == PREPARE for group in containers.values() for container in group)
    volumes = storage.volumes(parts.manifest, parts.job, runtime, secrets=fetches, reports=parts.endpoint is not None)
    name = names.job_name(metadata["name"], metadata["uid"], segment, number)
    return job_manifest(parts, name, ours, told, pod_spec(parts, containers, volumes, placed=placed))


def job_manifest(parts: JobParts, name: str, own_labels: dict[str, str], told: TrainerConfig, pod: Part, **more: int) -> Part:
    """Return a batch/v1 Job of one pod. told: the config of its trainer. more: fields of the Job's spec."""
    runtime, ours = parts.snapshot.spec, {**labels(parts.manifest), **own_labels}
    queue = {c.QUEUE_LABEL: runtime.queue_name} if runtime.queue_name else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": parts.manifest["metadata"]["namespace"],
            "labels": {**ours, **queue},
            "annotations": {c.RUNTIME_SNAPSHOT_ANNOTATION: parts.snapshot.text},
            "ownerReferences": [owner_reference(parts.manifest)],
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": FAILURE_RULES},
            # With a queue, suspension is Kueue's alone: it starts the Job when its workload is admitted.
            **({"suspend": True} if queue else {}),
            **more,
            "template": {
                "metadata": {
                    "labels": {**runtime.pod_labels, **ours},
                    "annotations": {
                        **runtime.pod_annotations,
                        c.TRAINER_CONFIG_ANNOTATION: _annotated(parts, told),
                        **({c.PROGRESS_CA_ANNOTATION: parts.endpoint.authorities} if parts.endpoint is not None else {}),
                    },
                },
                "spec": pod,
            },
        },
    }


def _annotated(parts: JobParts, told: TrainerConfig) -> str:
    """Return what the trainer is told: the spec as its author wrote it. What was left out means what the image says, which a job keeps; an
    operator of another release would fill in other defaults."""
    document = told.model_dump(mode="json", exclude_none=True, exclude={"spec", "config_hash"})
    return json.dumps({**document, "spec": parts.manifest["spec"]}, ensure_ascii=False, separators=(",", ":"))


def pod_spec(parts: JobParts, containers: Part, volumes: list[Part], *, placed: bool) -> Part:
    """Return a PodSpec. `placed`: on the training pods' nodes, also because a ReadWriteOnce claim ties all pods to the first one's node."""
    runtime = parts.snapshot.spec
    pod: Part = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": runtime.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": c.TRAINER_UID,
            "runAsGroup": c.TRAINER_UID,
            "fsGroup": c.TRAINER_UID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **containers,
        "volumes": volumes,
    }
    if runtime.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret.name} for secret in runtime.image_pull_secrets]
    if runtime.priority_class_name:
        pod["priorityClassName"] = runtime.priority_class_name
    return {**pod, **(_placement(runtime) if placed else {})}


def _placement(runtime: ClusterFineTuneRuntimeSpec) -> Part:
    """Where training pods go. The runtime class belongs to it: a GPU node's may not exist elsewhere."""
    placement = {
        "nodeSelector": runtime.node_selector,
        "tolerations": [toleration.model_dump(mode="json", exclude_none=True) for toleration in runtime.tolerations],
        "affinity": runtime.affinity.model_dump(mode="json", exclude_none=True) if runtime.affinity is not None else None,
        "runtimeClassName": runtime.runtime_class_name,
    }
    return {name: value for name, value in placement.items() if value}


def _container(
    parts: JobParts,
    name: str,
    command: str,
    resources: RoleResources,
    *,
    secrets: bool = False,
    gpus: int = 0,
    more: tuple[str, ...] = (),
) -> Part:
    mounts = storage.mounts(parts.job, parts.snapshot.spec, secrets=secrets, reports=parts.endpoint is not None)
    made = container_spec(parts, name, (command, "--config", c.CONFIG_FILE, *more), resources, mounts, gpus=gpus)
    port = parts.snapshot.spec.metrics_port
    return made if port is None or name != TRAINER else _scraped(made, port)


def _scraped(container: Part, port: int) -> Part:
    """Give a container its own /metrics. Not an init container, whose port the pod's monitor would ask for long after its end."""
    variable = {"name": c.METRICS_PORT, "value": str(port)}
    return {**container, "env": [*container["env"], variable], "ports": [{"name": METRICS, "containerPort": port}]}


def container_spec(
    parts: JobParts, name: str, arguments: tuple[str, ...], resources: RoleResources, mounts: list[Part], *, gpus: int = 0
) -> Part:
    """Return a container that runs the trainer with these arguments."""
    runtime = parts.snapshot.spec
    granted = {runtime.gpu_resource_name: str(gpus)} if gpus else {}
    amounts = {"requests": {**resources.requests, **granted}, "limits": {**resources.limits, **granted}}
    return {
        "name": name,
        "image": runtime.image,
        "imagePullPolicy": runtime.image_pull_policy.value,
        "args": list(arguments),
        "env": _environment(parts),
        "resources": {kind: amount for kind, amount in amounts.items() if amount},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "terminationMessagePath": c.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _environment(parts: JobParts) -> list[dict[str, str]]:
    """The platform's variables, and ours, which no runtime may set."""
    ours = {
        "FINETUNE_TERMINATION_LOG": c.TERMINATION_LOG,
        "HOME": "/tmp",
        "OMP_NUM_THREADS": str(parts.snapshot.threads),
        # transformers' Trainer would post each step synchronously to an address that a cluster's environment may name.
        "DISABLE_KUBEFLOW_INTEGRATION": "TRUE",
        **({c.PROGRESS_URL: parts.endpoint.url} if parts.endpoint is not None else {}),
    }
    given = {variable.name: variable.value for variable in parts.snapshot.spec.env if variable.name not in ours}
    return [{"name": name, "value": value} for name, value in {**given, **ours}.items()]
