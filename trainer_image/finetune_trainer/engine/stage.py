"""One stage's training, from a model that stands ready to trained weights: `train_stage` is all that the recipe needs to know of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, set_seed

from finetune_api.v1alpha1.stage import HandOverWeights, Objective, Stage
from finetune_api.v1alpha1.training import EarlyStoppingMetric
from finetune_api.wire import Activity
from finetune_trainer.checkpoint import state
from finetune_trainer.checkpoint.epochs import CURVE, SAMPLES
from finetune_trainer.checkpoint.lineage import CheckpointRef
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.steplog import StepLog
from finetune_trainer.checkpoint.store import Committer
from finetune_trainer.data.prepared import PreparedStage
from finetune_trainer.engine.arguments import record, training_arguments
from finetune_trainer.engine.collate import Collator, Masking
from finetune_trainer.engine.guards import Guard, Guards
from finetune_trainer.engine.hooks import final_metrics
from finetune_trainer.engine.keeper import StageKeeper
from finetune_trainer.engine.order import stage_order
from finetune_trainer.engine.packing_probe import packing_for, padding_is_harmless
from finetune_trainer.engine.precision import Precision
from finetune_trainer.engine.rounding import rounded_adamw
from finetune_trainer.engine.trainer import StageTrainer
from finetune_trainer.engine.validation import validate
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Course, Length
from finetune_trainer.methods.registry import method_of
from finetune_trainer.progress import Reporter

Following = Callable[[nn.Module, Callable[[], bool], Callable[[int, int], None]], float]
"""Measures the share of answers of a model (`evaluation/instruction_following.py`): told whether to stop, it tells how many of how many prompts it has seen."""

CAUSAL = (Objective.CAUSAL_LANGUAGE_MODELING, Objective.SUPERVISED)

HEADLINES = ("eval_loss", "eval_token_accuracy", "eval_accuracy", "eval_f1_macro")
"""The metrics that every measurement of a stage tells, beside the one that early stopping looks at: a status has no room for all."""


@dataclass(frozen=True)
class StageOutcome:
    """What a stage's training came to; the model holds the weights to hand over."""

    steps: int
    total_steps: int
    stopped_early: bool
    step_used: int
    """Of the weights in the model: the last, or the best."""
    metrics: dict[str, float]
    """The training loss of the newest steps, the last measurement on validation data, and what guards added to the last step's loss."""
    best: float | None
    """The best value of the early-stopping metric."""
    resolved: dict[str, Any]
    """Every training option as it was used."""


def make_collator(objective: Objective, tokenizer: PreTrainedTokenizerBase, *, seed: int, mlm_probability: float | None = None) -> Collator:
    """The collator of an objective, for training, validation and suites. `seed` fixes the masks of masked language modelling."""
    masking = None
    if objective is Objective.MASKED_LANGUAGE_MODELING:
        masking = Masking(
            mask_id=tokenizer.mask_token_id,
            vocabulary=len(tokenizer),
            special_ids=frozenset(tokenizer.all_special_ids),
            probability=mlm_probability or 0.15,
            seed=seed,
        )
    return Collator(objective, tokenizer.pad_token_id or 0, masking)


def train_stage(
    *,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    stage: Stage,
    key: str,
    prepared: PreparedStage,
    precision: Precision,
    device: torch.device,
    seed: int,
    folder: Path,
    committer: Committer,
    resume: CheckpointRef | None,
    reporter: Reporter,
    stop: StopFlag,
    guards: Sequence[Guard] = (),
    following: Following | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> StageOutcome:
    """Train what requires gradients in `model`, and leave the weights to hand over in it.

    model: in the number types of `precision` already.     key: the stage's name in the run folder (`0-domain`). folder: this epoch's folder of the stage; samples.jsonl and curve.jsonl are
    appended there (the epoch has carried over what was committed). resume: a verified checkpoint of this stage, or None.
    following: measures the Instruction Following Score beside the losses, where early stopping looks at it.
    Raises Stopped once a signal was answered by a commit, and TrainerError (LossDiverged, OutOfMemory, PackingUnsafe, InvalidSpec, …).
    """
    set_seed(seed)
    training = stage.training
    model.to(device)
    collator = _exact_collator(model, tokenizer, stage, seed=seed, device=device)
    order = stage_order(stage, prepared, seed)
    total, steps_per_epoch = order.length(training)
    arguments = training_arguments(stage, seed=seed, total_steps=total, precision=precision, device=device, folder=folder)
    samples, curve = StepLog(folder / SAMPLES), StepLog(folder / CURVE)
    keeper = StageKeeper(
        stage=stage,
        key=key,
        committer=committer,
        samples=samples,
        curve=curve,
        validate=_validator(stage, prepared, replace(collator, packing=None), device, reporter, following) if prepared.validation else None,
        resume=resume,
        reporter=reporter,
        stop=stop,
        clock=clock,
    )
    method = method_of(stage.method.type)
    course = method.course(model, stage, Length(total, steps_per_epoch)) if method.course else Course()
    trainer = StageTrainer(
        model,
        arguments,
        rows=prepared.train,
        order=order,
        collator=replace(collator, groups=prepared.train.groups) if any(guard.reads_groups for guard in guards) else collator,
        total_steps=total,
        hooks=keeper,
        course=course,
        rates=method.rates(model, stage),
        decays=method.decays(model, stage),
        optimizer=rounded_adamw(arguments) if precision.trainable is torch.bfloat16 else None,
        guards=Guards(guards),
    )
    try:
        trainer.train()
        committer.wait()
        held = trainer.bytes_held()
    except TrainerError as error:
        error.stage = error.stage or stage.name
        raise
    finally:
        trainer.release()
        course.end()
        samples.close()
        curve.close()
    used = _use_best(trainer, stage, key, committer)
    return StageOutcome(
        steps=trainer.loop.step,
        total_steps=total,
        stopped_early=trainer.loop.step < total,
        step_used=used,
        metrics=final_metrics(trainer.loop),
        best=trainer.loop.verdict.best,
        resolved=record(arguments, precision, training)
        | {
            "stepsPerEpoch": steps_per_epoch,
            "lines": order.lines,
            "maxLength": prepared.max_length,
            "packing": collator.packing.value if collator.packing else "off",
            "device": str(device),
            **({"guards": trainer.guards.summary()} if guards else {}),
            "trainingBytes": held,
            "trainableParameters": sum(parameter.numel() for parameter in trainer.trainable().values()),
            **({"course": shown} if (shown := course.summary()) else {}),
            **({"told": lines} if (lines := course.told()) else {}),
        },
    )


def _exact_collator(model: nn.Module, tokenizer: PreTrainedTokenizerBase, stage: Stage, *, seed: int, device: torch.device) -> Collator:
    """The stage's collator, with what the loaded model was seen to allow: how to pack, and whether padding needs a mask."""
    collator = make_collator(stage.objective, tokenizer, seed=seed, mlm_probability=stage.training.mlm_probability)
    if stage.objective not in CAUSAL:
        return collator
    vocabulary = len(tokenizer)
    if stage.training.packing:
        where = f"stage {stage.name}, training.packing"
        collator = replace(collator, packing=packing_for(model, collator, vocabulary=vocabulary, device=device, where=where))
    return replace(collator, needs_mask=not padding_is_harmless(model, collator, vocabulary=vocabulary, device=device))


def _validator(
    stage: Stage, prepared: PreparedStage, collator: Collator, device: torch.device, reporter: Reporter, following: Following | None
) -> Callable[[StageTrainer, Callable[[], bool]], dict[str, float]]:
    rows = prepared.validation
    assert rows is not None, "called only where there are validation rows"
    batch_size = stage.training.eval_rows

    rule = stage.training.early_stopping
    shown = {*HEADLINES, *([rule.metric.value] if rule else [])}

    def measure(trainer: StageTrainer, should_stop: Callable[[], bool]) -> dict[str, float]:
        def seen(count: int) -> None:
            reporter.report(Activity.EVALUATE, stage=stage.name, suite="validation", done=count, total=len(rows), unit="rows")

        def answered(count: int, total: int) -> None:
            reporter.report(Activity.EVALUATE, stage=stage.name, suite="validation", done=count, total=total, unit="prompts")

        found = validate(trainer.model, rows, collator, batch_size=batch_size, device=device, should_stop=should_stop, on_rows=seen)
        if following is not None:
            found[EarlyStoppingMetric.INSTRUCTION_FOLLOWING.value] = following(trainer.model, should_stop, answered)
        return {name: value for name, value in found.items() if name in shown}

    return measure


def _use_best(trainer: StageTrainer, stage: Stage, key: str, committer: Committer) -> int:
    """Put the best step's weights into the model where the stage hands those over; returns the step of what is in it."""
    best = trainer.loop.verdict.best_step
    if stage.hand_over_weights is not HandOverWeights.BEST or best is None or best == trainer.loop.step:
        return trainer.loop.step
    state.restore_weights(committer.find(key, best).path, trainer.trained_tensors())
    return best
