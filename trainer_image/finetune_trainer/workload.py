"""How a job's work is shared among its parts, for the percentage and the time left. Pure; the unit is one token forward.

A training token costs three (forward, and backward with respect to activations and weights); a generated token costs a pass of its own.
"""

from __future__ import annotations

from typing import Final

from finetune_api.arms import Arm, arms
from finetune_api.plan import segments
from finetune_api.v1alpha1.evaluation import Metric, Suite
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.stage import Stage
from finetune_api.wire import Activity
from finetune_trainer.checkpoint.lineage import stage_name
from finetune_trainer.data.prepared import Prepared, PreparedStage, PreparedSuite
from finetune_trainer.evaluation.results import BASE
from finetune_trainer.progress import Part

TRAINING_COST: Final = 3.0
PREPARE_SHARE: Final = 0.03
PUBLISH_SHARE: Final = 0.02
DEFAULT_NEW_TOKENS: Final = 64
PREPARE_PERCENT: Final = 100 * PREPARE_SHARE / (1 + PREPARE_SHARE + PUBLISH_SHARE)
"""Percent of the whole job that are done once the data are prepared."""


def train_part(arm: Arm, index: int, stage: Stage) -> str:
    """Name of the part in which a stage trains."""
    return f"train {arm.name} {index}-{stage.name}"


def measure_part(arm: Arm, point: str, suite: str) -> str:
    """Name of the part in which a suite is measured at a point (`base`, `0-domain`); the base is every arm's."""
    return f"measure {BASE if point == BASE else f'{arm.name} {point}'} {suite}"


def parts(spec: FineTuneJobSpec, prepared: Prepared) -> list[Part]:
    """Every part of the job in its order: prepare, the base's suites, each stage and the suites after it (of one segment all arms'), publish."""
    every = arms(spec)
    points: list[Part] = _measures(every[0], BASE, spec, prepared) if spec.evaluation.baseline else []
    for segment in segments(spec)[1:]:
        for arm in every:
            for index, stage in enumerate(arm.stages):
                if stage.name in segment.stages:
                    points.append(Part(train_part(arm, index, stage), Activity.TRAIN, _training(stage, prepared.stages[stage.name])))
                    points += _measures(arm, stage_name(index, stage.name), spec, prepared)
    total = sum(part.weight for part in points)
    return [Part("prepare", Activity.PREPARE, PREPARE_SHARE * total), *points, Part("publish", Activity.PUBLISH, PUBLISH_SHARE * total)]


def _training(stage: Stage, prepared: PreparedStage) -> float:
    training, lengths = stage.training, prepared.train.lengths
    epoch = float(lengths[prepared.selection].sum())
    rows = training.batch_rows * training.accumulation
    epochs = training.num_train_epochs or training.max_steps or 1
    if training.max_steps is not None:
        epochs = training.max_steps * rows / max(1, len(prepared.selection))
    validations = _validations(stage, prepared, rows, epochs)
    return TRAINING_COST * epoch * epochs + validations


def _validations(stage: Stage, prepared: PreparedStage, rows: int, epochs: float) -> float:
    if prepared.validation is None:
        return 0.0
    steps = epochs * len(prepared.selection) / rows
    return float(prepared.validation.lengths.sum()) * (steps // stage.eval_steps if stage.eval_steps else 1)


def _measures(arm: Arm, point: str, spec: FineTuneJobSpec, prepared: Prepared) -> list[Part]:
    return [
        Part(measure_part(arm, point, suite.name), Activity.EVALUATE, _measuring(suite, prepared.suites[suite.name]))
        for suite in spec.evaluation.suites
    ]


def _measuring(suite: Suite, prepared: PreparedSuite) -> float:
    written = len(prepared.rows) * (suite.max_new_tokens or DEFAULT_NEW_TOKENS) if Metric.EXACT_MATCH in suite.metrics else 0
    return float(prepared.rows.lengths.sum()) + written
