"""What has become of a FineTuneJob: what a person, `kubectl wait`, Argo CD and a script read."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from finetune_api import constants as c
from finetune_api.base import ApiModel

Text = Annotated[str, Field(max_length=c.MAX_MESSAGE)]
Short = Annotated[str, Field(max_length=256)]
Time = Annotated[str, Field(max_length=64)]


class Phase(StrEnum):
    PENDING = "Pending"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    RUNNING = "Running"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Condition(ApiModel):
    type: Short
    """Accepted, Running, Suspended, Complete, Failed, Finished, Stalled or Reconciling. Example: Running"""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown. Example: "True" """
    reason: Short
    """One word, from a closed list. Example: Training"""
    message: Text
    """A sentence for people. Example: pod ft-support-intents-0a1b2c3d-1-1-x7k2p runs on node gpu-node-7"""
    last_transition_time: Time
    """When status changed, RFC 3339. Example: "2030-01-01T12:00:00Z" """
    observed_generation: int | None = None
    """The generation that it speaks of. Example: 1"""


class Progress(ApiModel):
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the whole job that is done, evaluation and preparation included; it never goes back. Example: 41"""
    arm: Short | None = None
    """What is trained of what the job trains more than once: the seed, and whether directly from the base. Example: seed 2, direct"""
    step: int | None = None
    """Optimizer steps of the current stage, true also after a resume. Example: 410"""
    total_steps: int | None = None
    """Optimizer steps of the current stage in all. Example: 1000"""
    epoch: float | None = None
    """Passes over the stage's data. Example: 1.2"""
    loss: float | None = None
    """Training loss a supervised token, mean since the last report. Example: 0.81"""
    tokens_per_second: float | None = None
    """Tokens that are not padding, a second. Example: 5120"""
    gpu_memory_bytes: int | None = None
    """What tensors hold of the memory of the GPU that trains, while it runs. Example: 42949672960"""
    gpu_memory_peak_bytes: int | None = None
    """The most of it that the trainer's process has taken. Example: 51539607552"""
    gpu_memory_total_bytes: int | None = None
    """What that GPU has. Example: 85899345920"""
    gpu_utilization_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the second before the last report in which that GPU computed, while it runs. Example: 97"""
    eta_seconds: int | None = None
    """Seconds to the job's end, estimated. Example: 3600"""
    eta: Short | None = None
    """The same for people. Example: 1h0m"""
    updated_at: Time | None = None
    """When this was true, RFC 3339. Example: "2030-01-01T12:00:00Z" """


class Summary(ApiModel):
    """Strings for kubectl's columns."""

    stage: Short | None = None
    """The stage that runs, behind its arm where the job has several. Example: "seed 2: task" """
    methods: Short | None = None
    """The methods of its stages. Example: full+lora"""
    score: Short | None = None
    """The first gate's metric, base and tuned. Example: loss 5.34 → 3.31"""
    queue: Short | None = None
    """Kueue's queue. Example: team-a"""
    node: Short | None = None
    """Where the newest pod runs. Example: gpu-node-7"""
    attempts: Short | None = None
    """Attempts of the segment that runs. Example: 1/3"""


class CheckpointStatus(ApiModel):
    step: int
    """Optimizer step of the stage. Example: 400"""
    uri: Annotated[str, Field(max_length=c.MAX_URI)]
    """Where it lies. Example: pvc://runs/team-a/support-intents-0a1b2c3d/epochs/0001/stages/0-task/checkpoint-00000400"""
    sha256: Annotated[str, Field(max_length=64)]
    """SHA-256 of its manifest, which holds the hash of every file. Example: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"""
    verified: bool
    """Whether every file was read back and matched. Example: true"""


class StageStatus(ApiModel):
    name: Short
    """The stage. Example: task"""
    phase: Annotated[Phase, Field(strict=False)]
    """Pending, Running, Suspending, Suspended, Succeeded or Failed. Example: Running"""
    attempts: int = 0
    """Attempts that worked on it. Example: 1"""
    started_at: Time | None = None
    """RFC 3339. Example: "2030-01-01T12:00:00Z" """
    finished_at: Time | None = None
    """RFC 3339. Example: "2030-01-01T13:00:00Z" """
    metrics: Annotated[dict[str, float], Field(max_length=32)] = {}
    """Last training and validation metrics; loss is the newest step's, and at the end the mean over the last point of its curve. Example: {loss: 0.81, eval_loss: 0.87}"""
    checkpoint: CheckpointStatus | None = None
    """The newest one. Example: {step: 400, uri: pvc://runs/team-a/support-intents-0a1b2c3d/checkpoint-00000400, sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae, verified: true}"""


class AttemptStatus(ApiModel):
    segment: Short
    """The segment: prepare, or the names of its stages. Example: domain, task"""
    number: int
    """Counted from 1 in each segment. Example: 1"""
    job: Short | None = None
    """The batch/v1 Job. Example: ft-support-intents-0a1b2c3d-1-1"""
    pod: Short | None = None
    """Its pod. A Job replaces a disrupted pod by itself, so one number may have several. Example: ft-support-intents-0a1b2c3d-1-1-x7k2p"""
    node: Short | None = None
    """Where its pod ran. Example: gpu-node-7"""
    boot_id: Short | None = None
    """The node's bootID then: another one later means that the node was restarted. Example: 8f0c7a5e-6f0e-4c5b-9a53-0d2b7c1f7a10"""
    started_at: Time | None = None
    """RFC 3339. Example: "2030-01-01T12:00:00Z" """
    finished_at: Time | None = None
    """RFC 3339. Example: "2030-01-01T13:00:00Z" """
    reason: Short | None = None
    """How it ended; before its end, why it is being ended. Example: Evicted"""
    exit_code: int | None = None
    """The trainer's exit code. Example: 75"""
    resumed_from_step: int | None = None
    """The step of the checkpoint that it started from. Example: 400"""
    steps_lost: int | None = None
    """Steps that the attempt before it had done and that were done again. Example: 10"""
    arm: int | None = None
    """What it spoke of last of all that the job trains more than once, from 0 in their order; left out where that is one. Example: 1"""
    stage: Short | None = None
    """The stage that it spoke of last. Example: task"""
    step: int | None = None
    """The last step of that stage that it spoke of. Example: 410"""


class BudgetStatus(ApiModel):
    segment: Short
    """The segment: prepare, report, or the names of its stages. Example: domain, task"""
    index: int | None = None
    """Its index; left out for the report. Example: 1"""
    attempts: int = 0
    """Failed attempts, of spec.retry.maxAttempts. Example: 1"""
    preemptions: int = 0
    """Disruptions, of spec.retry.maxPreemptions. Example: 2"""


class StageScore(ApiModel):
    stage: Short
    """The stage after which it was measured. Example: task"""
    value: float | None = None
    """The metric; left out where it is not applicable. Example: 3.31"""
    low: float | None = None
    """Lower end of the 95 % bootstrap interval. Example: 3.25"""
    high: float | None = None
    """Upper end of the 95 % bootstrap interval. Example: 3.38"""


class SeedSpread(ApiModel):
    mean: float
    """Mean over the seeds, after the last stage. Example: 3.29"""
    deviation: float
    """Standard deviation over the seeds (n − 1). Example: 0.04"""
    low: float
    """Lower end of the mean's 95 % interval (Student's t over the seeds). Example: 3.19"""
    high: float
    """Upper end of it. Example: 3.39"""


class DirectScore(ApiModel):
    stage: Short
    """The stage that was also trained directly. Example: task"""
    value: float
    """The metric after training it directly from the base; the mean over the seeds. Example: 3.52"""
    gain: float
    """By how much the stages before it made it better, in the metric's unit; below 0: worse. Example: 0.21"""
    low: float
    """Lower end of the gain's 95 % interval: paired over rows, or over the seeds where there are several. Example: 0.12"""
    high: float
    """Upper end of it. Example: 0.30"""
    verdict: Literal["Helped", "Hurt", "Unclear"]
    """Helped or Hurt where the interval leaves out 0, else Unclear. Example: Helped"""


class EvaluationStatus(ApiModel):
    suite: Short
    """The suite. Example: in-domain"""
    metric: Short
    """The metric. Example: loss"""
    baseline: float | None = None
    """Of the base model. Example: 5.34"""
    baseline_low: float | None = None
    """Lower end of its 95 % bootstrap interval. Example: 5.27"""
    baseline_high: float | None = None
    """Upper end of its 95 % bootstrap interval. Example: 5.41"""
    stages: Annotated[list[StageScore], Field(max_length=c.MAX_STAGES)] = []
    """After each stage. Example: [{stage: task, value: 3.31, low: 3.25, high: 3.38}]"""
    delta: float | None = None
    """The last stage's value less the base's. Example: -2.03"""
    gate: Literal["Passed", "Failed"] | None = None
    """The verdict, where a gate reads this metric. Example: Passed"""
    seeds: SeedSpread | None = None
    """Over the seeds, where there are several; the figures beside it are of the seed that is published. Example: {mean: 3.29, deviation: 0.04, low: 3.19, high: 3.39}"""
    direct: DirectScore | None = None
    """What leaving out the stages before came to, where a stage has compareWith. Example: {stage: task, value: 3.52, gain: 0.21, low: 0.12, high: 0.3, verdict: Helped}"""


class SeedScore(ApiModel):
    seed: int
    """The seed. Example: 2"""
    value: float
    """Its metric on the validation rows. Example: 3.21"""


class SeedsStatus(ApiModel):
    published: int
    """The seed of what is published, and of the figures in status.evaluation. Example: 2"""
    metric: Short
    """By which it was chosen, on the last stage's validation rows. Example: eval_loss"""
    scores: Annotated[list[SeedScore], Field(max_length=c.MAX_SEEDS)]
    """That metric of each seed. Example: [{seed: 1, value: 3.27}, {seed: 2, value: 3.21}]"""
    reason: Text
    """The same as a sentence. Example: "seed 2 has the lowest eval_loss on the validation rows of stage task: 3.21, of 3.21 to 3.27" """


class Artifact(ApiModel):
    kind: Literal["adapter", "merged", "report", "modelCard"]
    """What it is. Example: adapter"""
    uri: Annotated[str, Field(max_length=c.MAX_URI)]
    """Where it lies. Example: pvc://models/support-intents/adapter"""
    sha256: Annotated[str, Field(max_length=64)]
    """Of the file; of a folder, over the names and hashes of its files. Example: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"""
    bytes: int
    """Size of all its files. Example: 1048576"""
    weights_sha256: Annotated[str, Field(max_length=64)] | None = None
    """Of an adapter or a model, over the names and hashes of its safetensors files: the same wherever the same was learned. Example: fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9"""


class Provenance(ApiModel):
    model_revision: Short | None = None
    """Commit of the base model, or the hash of its files. Example: 12fd25f77366fa6b3b4b768ec3050bf629380bac"""
    dataset_hashes: Annotated[dict[str, Short], Field(max_length=c.MAX_SOURCES)] = {}
    """SHA-256 of each source's content, and of a classifier's files, by URI. Example: {pvc://data/train.jsonl: fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9}"""
    image_digest: Short | None = None
    """The trainer image. Example: sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"""
    config_hash: Short | None = None
    """SHA-256 of everything in the spec that decides the result. Example: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"""
    seed: int | None = None
    """The seed. Example: 42"""
    versions: Annotated[dict[str, Short], Field(max_length=32)] = {}
    """Of torch, transformers, peft and the trainer. Example: {torch: 2.9.1, transformers: 5.23.0}"""


class Usage(ApiModel):
    gpu_seconds: float | None = None
    """GPUs times the seconds that pods held them, of attempts that are over. Example: 7200.0"""
    running_seconds: float | None = None
    """Seconds that pods ran, of attempts that are over: what spec.activeDeadlineSeconds counts. Example: 3600.0"""
    gpu_seconds_lost: float | None = None
    """Of these, the seconds whose work was done again. Example: 120.0"""


class Failure(ApiModel):
    reason: Short
    """One of a closed list; docs/reference/failures.md has a section for each. Example: DataInvalid"""
    stage: Short | None = None
    """The stage in which it happened. Example: task"""
    message: Text
    """What was wrong, and where. Example: "train.jsonl, line 3: the column prompt is missing" """
    hint: Text
    """What to do. Example: Correct the rows that the message names."""
    exit_code: int | None = None
    """The trainer's exit code. Example: 11"""
    last_log_lines: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=c.MAX_LOG_LINES)] = []
    """The end of the log, secrets masked. Example: ["task: reading train.jsonl"]"""


class StatusWarning(ApiModel):
    reason: Short
    """DataBound, LossRising, LossFlat or GapOpening. Example: LossFlat"""
    message: Text
    """What the trainer notices, and what to try. Example: "stage task: the loss has not fallen over the last 400 steps (2.31 before, 2.30 now): raise training.learningRate to 6e-05, say" """
    since: Time
    """When the operator heard of it, RFC 3339. Example: "2030-01-01T12:00:00Z" """


class RuntimeStatus(ApiModel):
    """The runtime that the job started with; a change of the ClusterFineTuneRuntime does not reach it."""

    name: Annotated[str, Field(max_length=253)]
    """The ClusterFineTuneRuntime. Example: torch-cuda"""
    uid: Short
    """Its uid. Example: 6f0e4c5b-9a53-4d2b-8c1f-7a108f0c7a5e"""
    generation: int
    """Its generation when the job started. Example: 3"""
    image: Annotated[str, Field(max_length=512)]
    """The trainer image, by digest. Example: registry.example.com/finetune-trainer@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"""
    snapshot: Annotated[str, Field(max_length=c.MAX_SNAPSHOT)]
    """The whole of it as JSON: name, uid, generation, spec. Example: '{"name": "torch-cuda", "generation": 3}'"""


class ReadStatus(ApiModel):
    id: Short
    """The request's id; of an annotation that is no request, a hash of it. Example: 1a2b3c4d"""
    job: Short | None = None
    """The batch/v1 Job that was made for it. Example: ft-support-intents-0a1b2c3d-read-1a2b3c4d"""
    message: Text | None = None
    """Why none was made. Example: no adapter was published"""


class FineTuneJobStatus(ApiModel):
    observed_generation: int | None = None
    """The generation of the spec that this status speaks of. Example: 1"""
    phase: Annotated[Phase, Field(strict=False)] | None = None
    """For eyes; the conditions are the truth. Example: Running"""
    conditions: Annotated[list[Condition], Field(max_length=16)] = []
    """Accepted, Running, Suspended, Complete, Failed, Finished, Stalled, Reconciling. Example: [{type: Finished, status: "False", reason: NotFinished, message: it goes on, lastTransitionTime: "2030-01-01T12:00:00Z"}]"""
    runtime: RuntimeStatus | None = None
    """What the job runs in, as it was when the job started. Example: {name: torch-cuda, uid: 6f0e4c5b, generation: 3, image: registry.example.com/trainer@sha256, snapshot: "{}"}"""
    current_stage: Short | None = None
    """The stage that runs. Example: task"""
    progress: Progress | None = None
    """How far it is. Example: {percent: 41, step: 410, totalSteps: 1000, loss: 0.81, eta: 1h0m}"""
    warnings: Annotated[list[StatusWarning], Field(max_length=c.MAX_NOTICES)] = []
    """What the trainer notices while it runs, as long as it is so. Example: [{reason: LossFlat, message: "stage task: the loss has not fallen over the last 400 steps", since: "2030-01-01T12:00:00Z"}]"""
    summary: Summary | None = None
    """Strings for kubectl's columns. Example: {methods: full+lora, node: gpu-node-7, attempts: 1/3}"""
    stages: Annotated[list[StageStatus], Field(max_length=c.MAX_STAGES)] = []
    """Each stage. Example: [{name: task, phase: Running, attempts: 1}]"""
    attempts: Annotated[list[AttemptStatus], Field(max_length=c.MAX_ATTEMPTS_LISTED)] = []
    """The newest attempts. Example: [{segment: task, number: 1, node: gpu-node-7, reason: Succeeded, exitCode: 0}]"""
    budgets: Annotated[list[BudgetStatus], Field(max_length=c.MAX_STAGES + 2)] = []
    """What each segment has used of spec.retry. Example: [{segment: task, index: 1, attempts: 1, preemptions: 0}]"""
    evaluation: Annotated[list[EvaluationStatus], Field(max_length=c.MAX_GATES * 8)] = []
    """What was measured. Example: [{suite: in-domain, metric: loss, baseline: 5.34, stages: [{stage: task, value: 3.31}], delta: -2.03, gate: Passed}]"""
    seeds: SeedsStatus | None = None
    """Which of several seeds is published, and why. Example: {published: 2, metric: eval_loss, scores: [{seed: 1, value: 3.27}, {seed: 2, value: 3.21}], reason: seed 2 has the lowest eval_loss on the validation rows of stage task}"""
    artifacts: Annotated[list[Artifact], Field(max_length=c.MAX_ARTIFACTS)] = []
    """What was published. Example: [{kind: adapter, uri: pvc://models/support-intents/adapter, sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae, bytes: 1048576}]"""
    provenance: Provenance | None = None
    """What it was made from. Example: {modelRevision: 12fd25f77366fa6b3b4b768ec3050bf629380bac, seed: 42}"""
    usage: Usage | None = None
    """What it cost. Example: {gpuSeconds: 7200.0, runningSeconds: 3600.0}"""
    failure: Failure | None = None
    """Why it failed. Example: {reason: DataInvalid, message: "train.jsonl, line 3: the column prompt is missing", hint: Correct the row.}"""
    last_read: ReadStatus | None = None
    """The last request to read what the job left (annotation finetune.dev/read), and what came of it. Example: {id: 1a2b3c4d, job: ft-support-intents-0a1b2c3d-read-1a2b3c4d}"""
