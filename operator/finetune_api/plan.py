"""The plan: stages become segments, and each segment is told what to do. Pure; used by `finetune run` and by the operator.

A segment is what one process (one pod) works through. `prepare` is a segment of its own, without a GPU, and goes first. Contiguous
stages with equal resources share a segment, so that a GPU is queued for once.
"""

from __future__ import annotations

import hashlib
import itertools
import json

from finetune_api.base import WireModel
from finetune_api.constants import STALLED_AFTER_SECONDS
from finetune_api.v1alpha1.fine_tune_job import RULES_APART, FineTuneJob, FineTuneJobSpec
from finetune_api.v1alpha1.stage import Objective, Stage
from finetune_api.v1alpha1.training import DEFAULT_ROWS
from finetune_api.wire import JobIdentity, SegmentKind, SegmentRef, TrainerConfig

DEFAULT_SAVE_STEPS = 200
DEFAULT_MLM_PROBABILITY = 0.15


class Runtime(WireModel):
    """Where a plan runs: the machine of `finetune run`, or what the platform team's runtime gives a pod."""

    run_folder: str
    base_folder: str = "."
    mounts: dict[str, str] = {}
    secret_files: dict[str, str] = {}
    threads: int = 1
    grace_seconds: int = 60
    stalled_after_seconds: int = STALLED_AFTER_SECONDS
    uid: str = ""


class Plan(WireModel):
    """Segments in the order in which they run."""

    job: JobIdentity
    config_hash: str
    segments: list[TrainerConfig]


def plan(job: FineTuneJob, *, runtime: Runtime) -> Plan:
    """Return what runs, in which order, and what each process is told.

    The job must be valid (`validation.problems` returned nothing). The same job gives the same plan and the same configHash, wherever it runs.
    """
    spec = resolve(job.spec)
    identity = JobIdentity(name=job.metadata.name, namespace=job.metadata.namespace or "default", uid=runtime.uid)
    digest = config_hash(spec)
    references = segments(spec)

    def config(segment: SegmentRef) -> TrainerConfig:
        told = {
            "job": identity,
            "config_hash": digest,
            "segment": segment,
            "spec": spec,
            "run_folder": runtime.run_folder,
            "base_folder": runtime.base_folder,
            "mounts": runtime.mounts,
            "secret_files": runtime.secret_files,
            "threads": runtime.threads,
            "grace_seconds": runtime.grace_seconds,
            "stalled_after_seconds": runtime.stalled_after_seconds,
        }
        # The job is valid: asking every rule again for each segment would be most of what a decision of the operator costs.
        return TrainerConfig.model_validate(told, context=RULES_APART)

    planned = {"job": identity, "config_hash": digest, "segments": [config(segment) for segment in references]}
    return Plan.model_validate(planned, context=RULES_APART)


def read_config(text: str | bytes) -> TrainerConfig:
    """Read what a trainer is told, with the defaults and the hash of the release that reads it: a run means what its own trainer makes of it,
    whichever release told it (docs/decisions/0020).

    Raises pydantic's ValidationError.
    """
    told = TrainerConfig.model_validate_json(text)
    return told.model_copy(update={"spec": resolve(told.spec), "config_hash": config_hash(told.spec)})


def segments(spec: FineTuneJobSpec) -> list[SegmentRef]:
    """Group contiguous stages with equal resources, after one segment that prepares for all of them."""
    groups = [list(group) for _, group in itertools.groupby(spec.stages, key=lambda stage: stage.resources)]
    prepare = SegmentRef(index=0, kind=SegmentKind.PREPARE, stages=[stage.name for stage in spec.stages], last=False)
    train = [
        SegmentRef(
            index=index,
            kind=SegmentKind.TRAIN,
            stages=[stage.name for stage in group],
            last=index == len(groups),
            gpus=group[0].resources.gpus,
        )
        for index, group in enumerate(groups, start=1)
    ]
    return [prepare, *train]


def resolve(spec: FineTuneJobSpec) -> FineTuneJobSpec:
    """Fill in the defaults that depend on other fields; what depends on the model or the machine is resolved by the trainer, and recorded."""
    seed = {} if spec.seeds else {"seed": spec.data_seed}
    return spec.model_copy(update={**seed, "stages": [_resolve_stage(stage) for stage in spec.stages]})


def _resolve_stage(stage: Stage) -> Stage:
    training, checkpoint = stage.training, stage.checkpoint
    changes: dict[str, object] = {}
    if training.learning_rate is None:
        changes["learning_rate"] = stage.method.row.learning_rate
    if training.warmup_steps is None and training.warmup_ratio is None:
        changes["warmup_ratio"] = stage.method.row.warmup
    if training.gradient_accumulation_steps is None:
        silent = training.per_device_train_batch_size is None
        changes["gradient_accumulation_steps"] = max(1, stage.method.row.batch // DEFAULT_ROWS) if silent else 1
    if training.per_device_train_batch_size is None:
        changes["per_device_train_batch_size"] = DEFAULT_ROWS
    if training.num_train_epochs is None and training.max_steps is None:
        changes["num_train_epochs"] = 1.0
    if training.per_device_eval_batch_size is None:
        changes["per_device_eval_batch_size"] = training.batch_rows
    if training.mlm_probability is None and stage.objective is Objective.MASKED_LANGUAGE_MODELING:
        changes["mlm_probability"] = DEFAULT_MLM_PROBABILITY
    if checkpoint.every_steps is None and checkpoint.every_minutes is None:
        checkpoint = checkpoint.model_copy(update={"every_steps": DEFAULT_SAVE_STEPS})
    return stage.model_copy(
        update={"training": training.model_copy(update=changes), "checkpoint": checkpoint, "method": stage.method.resolved()}
    )


def config_hash(spec: FineTuneJobSpec) -> str:
    """SHA-256 over what decides the result. Budgets, retries, suspension, where it runs and how often it saves are left out."""
    document = resolve(spec).model_dump(
        mode="json", exclude_none=True, include={"model", "tokenizer", "seed", "seeds", "stages", "evaluation", "output"}
    )
    document["output"] = {"format": document.get("output", {}).get("format")}
    for stage in document["stages"]:
        stage.pop("resources", None)
        stage.pop("checkpoint", None)
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
