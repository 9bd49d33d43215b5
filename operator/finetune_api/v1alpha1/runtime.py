"""The ClusterFineTuneRuntime: what the platform team decides for every job. Image, resources, placement, storage, Secrets and claims.

A job names a runtime and nothing of what is in it. A job's runtime is copied when the job starts, so a change here reaches new jobs only.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from finetune_api import constants as c
from finetune_api.base import ApiModel
from finetune_api.v1alpha1.fine_tune_job import RULES_APART
from finetune_api.v1alpha1.placement import Affinity, Toleration
from finetune_api.v1alpha1.rules import broken_rules
from finetune_api.v1alpha1.rules.runtime import RUNTIME_RULES, RUNTIME_UNIQUE
from finetune_api.v1alpha1.types import LabelValue, Name, ObjectName, Quantity

DEFAULT_GPU_RESOURCE = "nvidia.com/gpu"


class ImagePullPolicy(StrEnum):
    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Prepare(StrEnum):
    OWN_POD = "ownPod"
    IN_TRAIN_POD = "inTrainPod"


class AccessMode(StrEnum):
    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"
    READ_WRITE_MANY = "ReadWriteMany"


class PullSecret(ApiModel):
    name: ObjectName
    """A Secret of type kubernetes.io/dockerconfigjson in the job's namespace. Example: registry"""


class RoleResources(ApiModel):
    requests: Annotated[dict[str, Quantity], Field(max_length=c.MAX_RESOURCES)] = {}
    """What the scheduler reserves: cpu, memory, ephemeral-storage and others, but for GPUs. Default: none. Example: {cpu: 4, memory: 32Gi}"""
    limits: Annotated[dict[str, Quantity], Field(max_length=c.MAX_RESOURCES)] = {}
    """What a pod may use at most. Default: none. Example: {memory: 32Gi}"""


class RuntimeResources(ApiModel):
    prepare: RoleResources = RoleResources()
    """Of the pod that fetches, audits and tokenises, without GPUs. Default: none. Example: {requests: {cpu: 2, memory: 8Gi}}"""
    train: RoleResources = RoleResources()
    """Of a pod that trains; its GPUs are counted by gpus. Default: none. Example: {requests: {cpu: 8, memory: 64Gi}, limits: {memory: 64Gi}}"""
    report: RoleResources = RoleResources()
    """Of each container of the pod that reads a long result, without GPUs. Default: none. Example: {requests: {cpu: 100m, memory: 256Mi}}"""


class ClaimTemplate(ApiModel):
    class_name: ObjectName | None = None
    """The StorageClass. Default: the cluster's default class. A class of one node's disks keeps all pods of a job on that node. Example: fast-ssd"""
    access_mode: Annotated[AccessMode, Field(strict=False)] = AccessMode.READ_WRITE_ONCE
    """ReadWriteOnce, ReadWriteOncePod or ReadWriteMany. Default: ReadWriteOnce. Example: ReadWriteMany"""
    size: Quantity
    """What the claim asks for: a model that comes from the hub, the prepared rows, checkpoints (twice the trained weights and optimizer state at least) and the artifacts. Example: 100Gi"""


class Storage(ApiModel):
    """Where run folders lie: a claim made for each job, or one that is there in every namespace. Write one of the two."""

    claim_template: ClaimTemplate | None = None
    """A claim made for each job, deleted with it unless it holds artifacts to keep. Example: {accessMode: ReadWriteMany, size: 100Gi}"""
    claim_name: ObjectName | None = None
    """A PersistentVolumeClaim of this name in the job's namespace; each job has a folder of its own on it. Example: finetune-runs"""


class RuntimeClaim(ApiModel):
    name: Name
    """The name that `pvc://NAME/…` uses. Example: models"""
    claim_name: ObjectName
    """The PersistentVolumeClaim of this name in the job's namespace. Example: shared-models"""
    read_only: bool = False
    """Mount it for reading only. Default: false. Example: true"""


class RuntimeSecret(ApiModel):
    name: Name
    """The name that the fields `credentials` use. Example: hub"""
    secret_name: ObjectName
    """The Secret of this name in the job's namespace; its key `token` is used. Example: hub-token"""


class EnvironmentVariable(ApiModel):
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Not FINETUNE_…, HOME, OMP_NUM_THREADS or DISABLE_KUBEFLOW_INTEGRATION, which the operator sets. Example: HTTPS_PROXY"""
    value: Annotated[str, Field(max_length=4096)]
    """As it is; nothing is expanded. Never a secret: whoever may read the job's pods reads it. Example: "http://proxy.example.com:3128" """


class ClusterFineTuneRuntimeSpec(ApiModel):
    image: Annotated[str, Field(min_length=1, max_length=512)]
    """The trainer image by digest, so that it stays the same. Example: registry.example.com/finetune-trainer@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"""
    image_pull_policy: Annotated[ImagePullPolicy, Field(strict=False)] = ImagePullPolicy.IF_NOT_PRESENT
    """Always, IfNotPresent or Never. Default: IfNotPresent. Example: IfNotPresent"""
    image_pull_secrets: Annotated[list[PullSecret], Field(max_length=c.MAX_REFERENCES)] = []
    """The Secrets with the registry's credentials. Default: none. Example: [{name: registry}]"""
    prepare: Annotated[Prepare, Field(strict=False)] = Prepare.OWN_POD
    """ownPod (data is prepared before a GPU is taken) or inTrainPod (as an init container of the first training pod: one pod less to schedule, but its GPU waits). Default: ownPod. Example: ownPod"""
    gpu_resource_name: Annotated[str, Field(min_length=3, max_length=253, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = DEFAULT_GPU_RESOURCE
    """The extended resource that stands for a GPU. Default: nvidia.com/gpu. Example: amd.com/gpu"""
    gpus: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of a training pod whose stages ask for no number; 0 trains on the CPU. Default: 1. Example: 1"""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads of torch; results depend on it, and a run keeps its number. Default: the whole CPUs of the training pod's limit (else its request), else 1. Example: 8"""
    resources: RuntimeResources = RuntimeResources()
    """CPU and memory, by role. Default: none. Example: {train: {requests: {cpu: 8, memory: 64Gi}, limits: {memory: 64Gi}}}"""
    shared_memory: Quantity = "1Gi"
    """Size of /dev/shm, which counts as the pod's memory. Default: 1Gi. Example: 4Gi"""
    storage: Storage
    """Where run folders lie. Example: {claimTemplate: {accessMode: ReadWriteMany, size: 100Gi}}"""
    claims: Annotated[list[RuntimeClaim], Field(max_length=c.MAX_REFERENCES)] = []
    """Claims that every job may use, besides its own. At most 8. Default: none. Example: [{name: models, claimName: shared-models, readOnly: true}]"""
    secrets: Annotated[list[RuntimeSecret], Field(max_length=c.MAX_REFERENCES)] = []
    """Secrets that every job may use, besides its own. At most 8. Default: none. Example: [{name: hub, secretName: hub-token}]"""
    env: Annotated[list[EnvironmentVariable], Field(max_length=c.MAX_ENVIRONMENT)] = []
    """The trainer's environment. Default: none. Example: [{name: HTTPS_PROXY, value: "http://proxy.example.com:3128"}]"""
    queue_name: LabelValue | None = None
    """Kueue's LocalQueue in the job's namespace. Default: none: the Jobs go to the scheduler at once. Example: team-a"""
    priority_class_name: ObjectName | None = None
    """The pods' PriorityClass. Default: the cluster's. Example: training"""
    runtime_class_name: ObjectName | None = None
    """The pods' RuntimeClass. Default: the cluster's. Example: nvidia"""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=c.MAX_LABELS_OF_POD)] = {}
    """Labels that a training pod's node must have. Default: none. Example: {nvidia.com/gpu.product: NVIDIA-A100-SXM4-80GB}"""
    tolerations: Annotated[list[Toleration], Field(max_length=c.MAX_TOLERATIONS)] = []
    """Taints that a training pod accepts. Default: none. Example: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]"""
    affinity: Affinity | None = None
    """Which nodes, and beside which pods. Default: none. Example: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: gpu, operator: Exists}]}]}}}"""
    pod_labels: Annotated[dict[str, LabelValue], Field(max_length=c.MAX_LABELS_OF_POD)] = {}
    """Labels for every pod: a service mesh's, cost accounting's. Not with the prefix finetune.dev/. Default: none. Example: {cost-center: research}"""
    pod_annotations: Annotated[dict[str, Annotated[str, Field(max_length=c.MAX_ANNOTATION)]], Field(max_length=c.MAX_LABELS_OF_POD)] = {}
    """Annotations for every pod: an autoscaler's. Not with the prefix finetune.dev/. Default: none. Example: {cluster-autoscaler.kubernetes.io/safe-to-evict: "false"}"""
    metrics_port: Annotated[int, Field(ge=1024, le=65535)] | None = None
    """The port, named metrics, at which a pod that prepares or trains serves /metrics of its own: figures of each step, without the operator. Whoever reaches the pod may read them: stage names and figures, no data, no secret. Default: none: no port is open. Example: 9400"""
    node_lost_after_seconds: Annotated[int, Field(ge=10, le=86400)] = 300
    """Seconds that a node may be silent before its pod is given up and the attempt is repeated elsewhere. Default: 300. Example: 300"""
    stalled_after_seconds: Annotated[int, Field(ge=60, le=86400)] = c.STALLED_AFTER_SECONDS
    """Seconds in which no step, row, batch or byte advances, after which a trainer dumps its stacks and ends (reason Stalled), and the attempt is repeated; twice that while a model is loaded, handed over or published. Default: 1800. Example: 3600"""
    termination_grace_period_seconds: Annotated[int, Field(ge=10, le=3600)] = 60
    """Seconds between SIGTERM and SIGKILL: what a save may take. Default: 60. Example: 120"""

    @model_validator(mode="after")
    def _obeys_the_rules(self, info: ValidationInfo) -> Self:
        """Refuse a spec that breaks a cross-field rule: whoever holds a ClusterFineTuneRuntimeSpec holds a valid one."""
        if info.context is not RULES_APART:
            document: dict[str, object] = {"spec": self.model_dump(mode="json", exclude_none=True)}
            found = [f"{v.path}: {v.message}: {v.instead}" for v in broken_rules(document, rules=RUNTIME_RULES, unique=RUNTIME_UNIQUE)]
            if found:
                raise ValueError("; ".join(found))
        return self


class RuntimeMetadata(ApiModel):
    """Kubernetes' ObjectMeta, as far as a manifest has it; the API server checks the rest."""

    model_config = {**ApiModel.model_config, "extra": "allow"}

    name: ObjectName
    """What `spec.runtimeRef.name` of a job says. Example: torch-cuda"""
    labels: dict[str, str] = {}
    """Labels for selection. Example: {team: platform}"""
    annotations: dict[str, str] = {}
    """`finetune.dev/default-runtime: "true"` makes it the runtime of jobs that name none. Example: {finetune.dev/default-runtime: "true"}"""

    @property
    def is_default(self) -> bool:
        """Whether it is the runtime of jobs that name none."""
        return self.annotations.get(c.DEFAULT_RUNTIME_ANNOTATION) == "true"


class ClusterFineTuneRuntime(ApiModel):
    api_version: Literal["finetune.dev/v1alpha1"]
    """finetune.dev/v1alpha1. Example: finetune.dev/v1alpha1"""
    kind: Literal["ClusterFineTuneRuntime"]
    """ClusterFineTuneRuntime. Example: ClusterFineTuneRuntime"""
    metadata: RuntimeMetadata
    """Its name. Example: {name: torch-cuda}"""
    spec: ClusterFineTuneRuntimeSpec
    """What every job of this runtime gets. Example: {image: registry.example.com/finetune-trainer@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae, storage: {claimName: finetune-runs}}"""
