"""Every word that the operator, the trainer and the command line say to each other or to a user.

Group and version, failure reasons with their hints, the trainer's exit codes, and the bounds that the schema puts on lists, maps and
strings. Nothing here is computed; a name that is used in two places stands here once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

GROUP: Final = "finetune.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "FineTuneJob"
PLURAL: Final = "finetunejobs"
SHORT_NAME: Final = "ftj"
RUNTIME_KIND: Final = "ClusterFineTuneRuntime"
RUNTIME_PLURAL: Final = "clusterfinetuneruntimes"
RUNTIME_SHORT_NAME: Final = "ftr"
CATEGORY: Final = "finetune"
DEFAULT_RUNTIME_ANNOTATION: Final = f"{GROUP}/default-runtime"
TRAINER_CONFIG_ANNOTATION: Final = f"{GROUP}/trainer-config"
RUNTIME_SNAPSHOT_ANNOTATION: Final = f"{GROUP}/runtime-snapshot"
PROGRESS_CA_ANNOTATION: Final = f"{GROUP}/progress-ca"
READ_ANNOTATION: Final = f"{GROUP}/read"
"""On a FineTuneJob that has ended: a request to read what it left on its volume. The one annotation of a job that the operator looks at."""
READ_LABEL: Final = f"{GROUP}/read"
"""On a reading Job and its pod: the request's id."""
READ_SECONDS: Final = 300
"""How long a reading Job may take, and how long its pod's logs are there afterwards."""
PROGRESS_AUDIENCE: Final = f"{GROUP}/progress"
"""Of the tokens with which pods report to the operator; the API server takes them for nothing else."""
PROGRESS_TOKEN_SECONDS: Final = 3600
LIVE_METRICS: Final = ("loss", "learning_rate", "grad_norm")
"""Figures of the training steps among a stage's metrics while it trains, beside those of its validation."""
MANAGED_LABEL: Final = f"{GROUP}/managed"
"""`"true"` on every child: what the operator's watches select."""
JOB_UID_LABEL: Final = f"{GROUP}/job-uid"
JOB_LABEL: Final = f"{GROUP}/job"
SEGMENT_LABEL: Final = f"{GROUP}/segment"
ATTEMPT_LABEL: Final = f"{GROUP}/attempt"
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"

# Where things lie in a trainer's container.
CONFIG_FILE: Final = "/etc/finetune/config.json"
RUN_STORAGE: Final = "/finetune/run"
CLAIMS_FOLDER: Final = "/finetune/claims"
SECRETS_FOLDER: Final = "/finetune/secrets"
PROGRESS_FOLDER: Final = "/finetune/progress"
PROGRESS_TOKEN_FILE: Final = f"{PROGRESS_FOLDER}/token"
PROGRESS_CA_FILE: Final = f"{PROGRESS_FOLDER}/ca.crt"
PROGRESS_URL: Final = "FINETUNE_PROGRESS_URL"
"""Environment variable of a pod: where it reports its progress."""
METRICS_PORT: Final = "FINETUNE_METRICS_PORT"
"""Environment variable of a pod: the port of its own /metrics, where its runtime gives it one."""
TERMINATION_LOG: Final = "/dev/termination-log"
TRAINER_UID: Final = 65532
REPORT_PAGES: Final = 3
"""Containers of a report pod: each tells a page of the result in its termination message."""

RESERVED_ENVIRONMENT: Final = ("HOME", "OMP_NUM_THREADS", "DISABLE_KUBEFLOW_INTEGRATION")
"""What the operator sets in every trainer's environment, besides FINETUNE_…: a runtime may not."""
STALLED_AFTER_SECONDS: Final = 1800
"""A run in which nothing advances for so long hangs, unless its runtime says otherwise; docs/explanation/progress.md tells why."""
DOCS_FAILURES: Final = "docs/reference/failures.md"

# Bounds of the schema. The API server's CEL cost estimate multiplies them, so they are part of the API (docs/decisions/).
MAX_STAGES: Final = 16
MAX_SEEDS: Final = 10
MAX_SOURCES: Final = 64
MAX_GUARDS: Final = 8
MAX_AUGMENTATIONS: Final = 8
MAX_SUITES: Final = 32
MAX_GATES: Final = 64
MAX_METRICS: Final = 16
MAX_REFERENCES: Final = 8
MAX_LABELS: Final = 1024
MAX_PATTERNS: Final = 64
MAX_LAYERS: Final = 256
MAX_PARAMETER_GROUPS: Final = 16
MAX_ADDED_TOKENS: Final = 256
MAX_NAME: Final = 63
MAX_URI: Final = 1024
MAX_TEMPLATE: Final = 32768
MAX_MESSAGE: Final = 4096
MAX_ATTEMPTS_LISTED: Final = 64
MAX_ARTIFACTS: Final = 32
MAX_LOG_LINES: Final = 20
MAX_NOTICES: Final = 8
MAX_RESOURCES: Final = 16
MAX_ENVIRONMENT: Final = 64
MAX_LABELS_OF_POD: Final = 32
MAX_ANNOTATION: Final = 4096
MAX_TOLERATIONS: Final = 32
MAX_SNAPSHOT: Final = 65536


class ExitCode(IntEnum):
    """How a trainer process ends; the operator's podFailurePolicy and the command line read nothing else."""

    SUCCESS = 0
    INTERNAL = 1
    BAD_CONFIG = 10
    BAD_DATA = 11
    NOT_ACCESSIBLE = 12
    OUT_OF_MEMORY = 20
    DIVERGED = 21
    GATE_FAILED = 22
    STORAGE = 30
    NO_CHECKPOINT = 31
    STALLED = 40
    STOPPED = 75


PERMANENT_EXIT_CODES: Final = (
    ExitCode.BAD_CONFIG,
    ExitCode.BAD_DATA,
    ExitCode.NOT_ACCESSIBLE,
    ExitCode.DIVERGED,
    ExitCode.GATE_FAILED,
    ExitCode.NO_CHECKPOINT,
)
"""A second attempt would end the same way: the user has to change something first."""


class Reason(StrEnum):
    """The closed list of reasons for which a job fails; each has a section in docs/reference/failures.md."""

    INVALID_SPEC = "InvalidSpec"
    HAND_OVER_ILLEGAL = "HandOverIllegal"
    MODEL_UNSUPPORTED = "ModelUnsupported"
    MODEL_UNSAFE = "ModelUnsafe"
    PACKING_UNSAFE = "PackingUnsafe"
    RUN_FOLDER_MISMATCH = "RunFolderMismatch"
    RUN_FOLDER_BUSY = "RunFolderBusy"
    DATA_INVALID = "DataInvalid"
    DATA_EMPTY = "DataEmpty"
    NOTHING_SUPERVISED = "NothingSupervised"
    LABEL_UNKNOWN = "LabelUnknown"
    VALIDATION_LEAKS = "ValidationLeaks"
    CHAT_TEMPLATE_UNSUPPORTED = "ChatTemplateUnsupported"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_FORBIDDEN = "SourceForbidden"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    OUT_OF_MEMORY = "OutOfMemory"
    LOSS_DIVERGED = "LossDiverged"
    GATE_FAILED = "GateFailed"
    STORAGE_FULL = "StorageFull"
    STORAGE_UNWRITABLE = "StorageUnwritable"
    CHECKPOINT_INVALID = "CheckpointInvalid"
    STALLED = "Stalled"
    STOPPED = "Stopped"
    INTERNAL_ERROR = "InternalError"


class ClusterReason(StrEnum):
    """The rest of that closed list: what only a cluster does to a job. No exit code stands for them."""

    MEMORY_LIMIT_EXCEEDED = "MemoryLimitExceeded"
    LOCAL_STORAGE_EXCEEDED = "LocalStorageExceeded"
    UNKNOWN_EXIT = "UnknownExit"
    TOO_MANY_DISRUPTIONS = "TooManyDisruptions"
    DEADLINE_EXCEEDED = "DeadlineExceeded"


class ConditionType(StrEnum):
    ACCEPTED = "Accepted"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"
    FINISHED = "Finished"
    STALLED = "Stalled"
    RECONCILING = "Reconciling"


class ConditionReason(StrEnum):
    """Why a condition is what it is; Failed, Finished and Stalled of a failed job carry its Reason or ClusterReason instead."""

    # Accepted: why a job cannot start as it stands
    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    RUNTIME_NOT_FOUND = "RuntimeNotFound"
    RUNTIME_NOT_UNIQUE = "RuntimeNotUnique"
    RUNTIME_INVALID = "RuntimeInvalid"
    OUTPUT_TAKEN = "OutputTaken"
    NAME_TAKEN = "NameTaken"
    ADMISSION_REFUSED = "AdmissionRefused"
    # Running: what a job waits for
    STARTING = "Starting"
    QUEUED = "Queued"
    BACK_OFF = "BackOff"
    CLEANING_UP = "CleaningUp"
    QUOTA_EXCEEDED = "QuotaExceeded"
    LIMIT_RANGE = "LimitRange"
    POD_REFUSED = "PodRefused"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    GPU_UNAVAILABLE = "GpuUnavailable"
    UNSCHEDULABLE = "Unschedulable"
    CLAIM_MISSING = "ClaimMissing"
    CLAIM_UNBOUND = "ClaimUnbound"
    CLAIM_ELSEWHERE = "ClaimElsewhere"
    CLAIM_TERMINATING = "ClaimTerminating"
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    SECRET_MISSING = "SecretMissing"
    SECRET_KEY_MISSING = "SecretKeyMissing"
    CONTAINER_REFUSED = "ContainerRefused"
    NODE_SILENT = "NodeSilent"
    STOPPING = "Stopping"
    # Running: what runs
    PREPARING = "Preparing"
    TRAINING = "Training"
    REPORTING = "Reporting"
    NO_PROGRESS = "NoProgress"
    # Suspended
    NOT_SUSPENDED = "NotSuspended"
    SUSPENDING = "Suspending"
    CHECKPOINT_VERIFIED = "CheckpointVerified"
    CHECKPOINT_UNCONFIRMED = "CheckpointUnconfirmed"
    NOT_STARTED = "NotStarted"
    # the ends
    SUCCEEDED = "Succeeded"
    NOT_FINISHED = "NotFinished"
    NOT_STALLED = "NotStalled"
    NOT_RECONCILING = "NotReconciling"


class AttemptReason(StrEnum):
    """How an attempt ended where neither the trainer nor the list of failures says it."""

    SUCCEEDED = "Succeeded"
    SUSPENDED = "Suspended"
    SUPERFLUOUS = "Superfluous"
    EVICTED = "Evicted"
    PREEMPTED = "Preempted"
    QUEUE_PREEMPTED = "QueuePreempted"
    NODE_LOST = "NodeLost"
    NODE_REBOOTED = "NodeRebooted"
    NOT_ADMITTED = "NotAdmitted"
    POD_DELETED = "PodDeleted"
    JOB_DELETED = "JobDeleted"
    JOB_EDITED = "JobEdited"


class EventReason(StrEnum):
    """Reasons of events that tell what was found out, beside those of conditions and notices."""

    SEED_CHOSEN = "SeedChosen"
    """Which of several seeds is published, and why."""
    STAGING_COMPARED = "StagingCompared"
    """By how much the stages before one with compareWith helped or hurt; a warning where a metric was hurt."""


class NoticeReason(StrEnum):
    """What a trainer notices of itself while it runs, and nothing has failed: it stands as long as it is so."""

    NO_PROGRESS = "NoProgress"
    DATA_BOUND = "DataBound"
    LOSS_RISING = "LossRising"
    LOSS_FLAT = "LossFlat"
    GAP_OPENING = "GapOpening"


@dataclass(frozen=True)
class ReasonInfo:
    """What a reason means to the process (exit code) and to the user (what to do next)."""

    exit_code: ExitCode
    hint: str


REASONS: Final[dict[Reason, ReasonInfo]] = {
    Reason.INVALID_SPEC: ReasonInfo(
        ExitCode.BAD_CONFIG,
        "Correct the field that the message names; `finetune validate` shows at once all that the manifest alone can tell.",
    ),
    Reason.HAND_OVER_ILLEGAL: ReasonInfo(ExitCode.BAD_CONFIG, "Choose the hand-over that the message offers for this pair of methods."),
    Reason.MODEL_UNSUPPORTED: ReasonInfo(
        ExitCode.BAD_CONFIG, "Point spec.model.uri at a folder or repository that transformers can load for this objective."
    ),
    Reason.MODEL_UNSAFE: ReasonInfo(
        ExitCode.BAD_CONFIG,
        "Only safetensors (or GGUF) weights without remote code are loaded: convert the weights, or use another repository.",
    ),
    Reason.PACKING_UNSAFE: ReasonInfo(
        ExitCode.BAD_CONFIG, "This architecture mixes packed documents: set training.packing to false for this stage."
    ),
    Reason.RUN_FOLDER_MISMATCH: ReasonInfo(
        ExitCode.BAD_CONFIG, "The run folder holds another manifest's run: choose another folder, or delete this one."
    ),
    Reason.RUN_FOLDER_BUSY: ReasonInfo(
        ExitCode.BAD_CONFIG, "Another live run uses this folder: wait for it, stop it, or choose another folder."
    ),
    Reason.DATA_INVALID: ReasonInfo(
        ExitCode.BAD_DATA,
        "Correct what the message lists, by file and line where it is a row; the whole list is in prepare.json of the run folder.",
    ),
    Reason.DATA_EMPTY: ReasonInfo(
        ExitCode.BAD_DATA, "There is no row to use: check the URI, the glob and the format, or the share that is taken for validation."
    ),
    Reason.NOTHING_SUPERVISED: ReasonInfo(
        ExitCode.BAD_DATA, "No token would be learned from: raise training.maxLength, or correct the columns or the chat template."
    ),
    Reason.LABEL_UNKNOWN: ReasonInfo(ExitCode.BAD_DATA, "Correct the label, or add it to data.labels and to the training data."),
    Reason.VALIDATION_LEAKS: ReasonInfo(
        ExitCode.BAD_DATA, "Use validation rows that are not in the training data, or data.validation.fraction."
    ),
    Reason.CHAT_TEMPLATE_UNSUPPORTED: ReasonInfo(
        ExitCode.BAD_DATA, "Give model.chatTemplate a template with {% generation %} markers around what the assistant says."
    ),
    Reason.SOURCE_NOT_FOUND: ReasonInfo(
        ExitCode.NOT_ACCESSIBLE, "Check the URI, its revision, and that the claim or folder is mounted under that name."
    ),
    Reason.SOURCE_FORBIDDEN: ReasonInfo(
        ExitCode.NOT_ACCESSIBLE, "Name a Secret with a token that may read it in spec.references.secrets, and in the field credentials."
    ),
    Reason.SOURCE_UNREACHABLE: ReasonInfo(
        ExitCode.INTERNAL,
        "The source did not answer: start again later (on a cluster the attempt is repeated). If it goes on, check the network from there.",
    ),
    Reason.OUT_OF_MEMORY: ReasonInfo(
        ExitCode.OUT_OF_MEMORY,
        "Halve training.perDeviceTrainBatchSize and double gradientAccumulationSteps, set gradientCheckpointing, or lower maxLength.",
    ),
    Reason.LOSS_DIVERGED: ReasonInfo(
        ExitCode.DIVERGED,
        "Lower training.learningRate (to a third, say), add warmupRatio, or mend the rows that the message names; begin in a new run folder.",
    ),
    Reason.GATE_FAILED: ReasonInfo(
        ExitCode.GATE_FAILED,
        "The model missed a gate, so nothing was published: the evaluation says by how much; change the training or the gate, in a new run folder.",
    ),
    Reason.STORAGE_FULL: ReasonInfo(
        ExitCode.STORAGE, "Free space in the run folder or enlarge its volume, then start again: it goes on from the last checkpoint."
    ),
    Reason.STORAGE_UNWRITABLE: ReasonInfo(
        ExitCode.STORAGE, "Make the run folder writable for this user (fsGroup on a cluster), then start again."
    ),
    Reason.CHECKPOINT_INVALID: ReasonInfo(
        ExitCode.NO_CHECKPOINT, "No checkpoint in the run folder is whole: delete the folder to start anew, or restore it from a backup."
    ),
    Reason.STALLED: ReasonInfo(
        ExitCode.STALLED,
        "Nothing advanced for a long time; the message and the log say where each thread stood. Start it again (on a cluster the attempt is repeated): it goes on from the newest checkpoint.",
    ),
    Reason.STOPPED: ReasonInfo(ExitCode.STOPPED, "It was told to stop and saved first: start it again to go on from there."),
    Reason.INTERNAL_ERROR: ReasonInfo(
        ExitCode.INTERNAL, "This is a fault of the trainer, not of the manifest: the log in the run folder has the details."
    ),
}

CLUSTER_HINTS: Final[dict[ClusterReason, str]] = {
    ClusterReason.MEMORY_LIMIT_EXCEEDED: (
        "Halve training.perDeviceTrainBatchSize and double gradientAccumulationSteps, or ask the platform team for a runtime with more memory."
    ),
    ClusterReason.LOCAL_STORAGE_EXCEEDED: (
        "Ask the platform team for a runtime with more ephemeral-storage in resources (or more sharedMemory, where the message names that volume)."
    ),
    ClusterReason.UNKNOWN_EXIT: (
        "The trainer was ended from outside, or its image is not a finetune trainer: look at the last lines of its log and at the pod's events; "
        "where they say nothing, make the job again."
    ),
    ClusterReason.TOO_MANY_DISRUPTIONS: (
        "The cluster took its pods away too often: raise retry.maxPreemptions in a new job, or ask for nodes that are not reclaimed."
    ),
    ClusterReason.DEADLINE_EXCEEDED: (
        "Make a new job with a higher activeDeadlineSeconds or less to do: suspension and waiting don't count, only pods that ran."
    ),
}

NOTICE_HINTS: Final[dict[NoticeReason, str]] = {
    NoticeReason.NO_PROGRESS: "Look at what it waits for: most often a disk, a network file system or a GPU that no longer answers.",
    NoticeReason.DATA_BOUND: (
        "Rows are read from the run folder and put into batches by the CPU: ask the platform team for a runtime with faster storage (storage.claimTemplate.className) or more CPU, or raise training.perDeviceTrainBatchSize to"
    ),
    NoticeReason.LOSS_RISING: "Lower training.learningRate to",
    NoticeReason.LOSS_FLAT: "Unless the model knew this kind of text already, raise training.learningRate to",
    NoticeReason.GAP_OPENING: "It learns the training rows by heart: end earlier by training.earlyStopping with handOverWeights: best, or by",
}
"""What to look at or to try. Where the trainer knows a value to try, it adds it."""
