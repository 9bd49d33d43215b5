"""Measuring a point of a run: every suite with the model that has its head, and everything into the run folder.

A point's JSON is written last, when all of its suites are measured: where it exists, the point is complete, and a resumed run reads it instead
of measuring again. Where it does not, the whole point is measured again, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from finetune_api.v1alpha1.evaluation import Samples, Suite
from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.evaluation import metrics
from finetune_trainer.evaluation.bootstrap import paired_difference
from finetune_trainer.evaluation.records import RowRecords
from finetune_trainer.evaluation.results import (
    BASE,
    PointResult,
    PointSamples,
    SuiteResult,
    point_path,
    rows_path,
    samples_path,
    write,
)
from finetune_trainer.evaluation.rows import SuiteRows
from finetune_trainer.evaluation.suites import Measured, evaluate, not_applicable, suite_seed, take_samples
from finetune_trainer.progress import Reporter


@dataclass(frozen=True)
class Head:
    """The model that measures a suite at a point."""

    model: nn.Module
    labels: Sequence[str] | None = None
    """Classes of its head, in their order."""
    note: str | None = None
    """What a reader must know ("measured with the head that the stage domain left")."""


@dataclass(frozen=True)
class Setting:
    """What all points of a run share."""

    folder: Path
    """RUN/evaluation."""
    suites: Sequence[Suite]
    prepared: Callable[[str], SuiteRows]
    """The rows of a suite, by its name."""
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    batch_size: int
    seed: int
    samples: Samples
    end_tokens: Sequence[int] = ()
    """What ends an answer, beside the tokenizer's and the model's own."""
    extended_tokenizer: bool = False


def measure_point(
    setting: Setting,
    point: str,
    stage: str | None,
    head_for: Callable[[Suite], Head | str],
    *,
    reporter: Reporter,
    should_stop: Callable[[], bool],
) -> PointResult:
    """Measure all suites, and take the samples from the first supervised one; write them; return the point.

    `head_for` gives the model for a suite, or the reason why it is not applicable at this point. It is asked for one suite at a time, so that
    it may load and drop an archived head's model. Raises what `evaluate` raises.
    """
    results: list[SuiteResult] = []
    shown = next((suite for suite in setting.suites if suite.objective is Objective.SUPERVISED), None)
    for suite in setting.suites:
        head = head_for(suite)
        if isinstance(head, str):
            results.append(not_applicable(suite, head))
            continue
        measured = evaluate(
            head.model,
            setting.tokenizer,
            suite,
            setting.prepared(suite.name),
            batch_size=setting.batch_size,
            device=setting.device,
            seed=setting.seed,
            reporter=reporter,
            should_stop=should_stop,
            head_labels=head.labels,
            end_tokens=setting.end_tokens,
            extended_tokenizer=setting.extended_tokenizer,
            note=head.note,
        )
        measured.records.save(rows_path(setting.folder, point, suite.name))
        results.append(with_changes(setting, suite, measured) if point != BASE else measured.result)
        if suite is shown and setting.samples.count:
            _sample(setting, point, suite, head.model)
    result = PointResult(point=point, stage=stage, suites=results)
    write(point_path(setting.folder, point), result)
    return result


def with_changes(setting: Setting, suite: Suite, measured: Measured) -> SuiteResult:
    """Add the paired difference from the base of each figure, where the base was measured on the same rows."""
    path = rows_path(setting.folder, BASE, suite.name)
    base = RowRecords.load(path) if path.exists() else None
    if base is None or list(base.ids) != list(measured.records.ids):
        return measured.result
    seed = suite_seed(setting.seed, suite.name)
    found = {
        metric: paired_difference(measured.records, base, metrics.STATISTICS[metric], seed=seed) for metric in measured.result.estimates
    }
    return measured.result.model_copy(update={"changes": {metric: change for metric, change in found.items() if change is not None}})


def _sample(setting: Setting, point: str, suite: Suite, model: nn.Module) -> None:
    count, limit = setting.samples.count, setting.samples.max_new_tokens
    rows = setting.prepared(suite.name)
    taken = take_samples(
        model, setting.tokenizer, rows, count=count, max_new_tokens=limit, device=setting.device, end_tokens=setting.end_tokens
    )
    write(samples_path(setting.folder, point), PointSamples(point=point, suite=suite.name, max_new_tokens=limit, samples=taken))
