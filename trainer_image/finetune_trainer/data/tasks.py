"""What of a manifest has to be prepared: every source of every stage and suite, with what decides how its rows become tokens. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune_api.constants import Reason
from finetune_api.v1alpha1.data import GROUPS, DataFormat, Overflow, Source, Validation
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.regularization import GuardType
from finetune_api.v1alpha1.stage import Objective, Stage
from finetune_trainer.data.augment import Augmenter
from finetune_trainer.data.models import Limits
from finetune_trainer.data.report import VERSION
from finetune_trainer.errors import TrainerError
from finetune_trainer.objectives import Options

DEFAULT_MAX_LENGTH = 2048


@dataclass(frozen=True)
class Task:
    """One source to prepare."""

    where: str
    """Its field of the manifest."""
    source: Source
    objective: Objective
    options: Options
    weight: float | None = None
    augmenter: Augmenter | None = None
    """Makes copies of training rows."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Columns that say of which domain a training row is, and with which confounder, where a guard asks for them."""


@dataclass(frozen=True)
class StageTasks:
    name: str
    train: tuple[Task, ...]
    validation: Task | None


@dataclass(frozen=True)
class Tasks:
    stages: tuple[StageTasks, ...]
    suites: tuple[tuple[str, Task], ...]

    @property
    def every(self) -> list[Task]:
        """All of them, in the manifest's order."""
        stages = [task for stage in self.stages for task in (*stage.train, *([stage.validation] if stage.validation else []))]
        return [*stages, *(task for _, task in self.suites)]


def tasks(spec: FineTuneJobSpec, limits: Limits) -> Tasks:
    """Raises TrainerError (InvalidSpec) where a maxLength is more than the model's positions."""
    longest = max((stage.method.positions for stage in spec.stages), default=0)
    stages: list[StageTasks] = []
    for number, stage in enumerate(spec.stages):
        place = f"spec.stages[{number}]"
        options = Options(
            max_length=max_length(stage.training.max_length, behind(limits, stage.method.positions), where=f"{place}.training.maxLength"),
            columns=stage.data.columns,
            overflow=stage.data.overflow,
            labels=tuple(stage.data.labels) if stage.data.labels else None,
        )
        augmenter = _augmenter(stage, spec.data_seed)
        groups = _groups(stage)
        train = tuple(
            Task(f"{place}.data.train[{index}]", source, stage.objective, options, source.weight, augmenter, groups)
            for index, source in enumerate(stage.data.train)
        )
        validation = _validation(stage.data.validation)
        checked = None if validation is None else Task(f"{place}.data.validation", validation, stage.objective, options)
        stages.append(StageTasks(stage.name, train, checked))
    suites: list[tuple[str, Task]] = []
    for number, suite in enumerate(spec.evaluation.suites):
        place = f"spec.evaluation.suites[{number}]"
        options = Options(
            max_length=max_length(suite.max_length, behind(limits, longest), where=f"{place}.maxLength"),
            columns=suite.data.columns,
            overflow=Overflow.TRUNCATE,
            labels=tuple(suite.labels) if suite.labels else None,
        )
        suites.append((suite.name, Task(f"{place}.data", suite.data, suite.objective, options)))
    return Tasks(tuple(stages), tuple(suites))


def behind(limits: Limits, positions: int) -> Limits:
    """What is left of the model's positions for a row behind a trained prompt; what a manifest asks for is judged with the method."""
    return limits._replace(advised=limits.advised - positions) if limits.advised is not None else limits


def max_length(asked: int | None, limits: Limits, *, where: str) -> int:
    """The manifest's, else the smaller of the model's limit and 2048. Raises TrainerError where the model has fewer positions."""
    if asked is None:
        return min(limits.advised or DEFAULT_MAX_LENGTH, DEFAULT_MAX_LENGTH)
    if limits.hard is not None and asked > limits.hard:
        raise TrainerError(Reason.INVALID_SPEC, f"{asked} is more than the {limits.hard} positions that the model has", where=where)
    return asked


def part_key(task: Task, *, format: DataFormat, hashes: list[str], tokenizer: str, end_tokens: list[int]) -> str:
    """The name of a part: SHA-256 over everything that decides its bytes, shortened to 32 digits."""
    options = task.options
    document = {
        "version": VERSION,
        "objective": task.objective,
        "format": format,
        "files": hashes,
        "tokenizer": tokenizer,
        "maxLength": options.max_length,
        "overflow": options.overflow,
        "columns": options.columns.model_dump(mode="json", exclude_none=True),
        # Labels don't change the rows, but one that isn't among them is an error.
        "labels": options.labels,
        "endTokens": end_tokens,
    }
    if task.groups:
        document["groups"] = dict(task.groups)
    if task.augmenter is not None:
        document["augmentation"] = task.augmenter.document()
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def _augmenter(stage: Stage, seed: int) -> Augmenter | None:
    if not stage.data.augmentation:
        return None
    named = stage.data.columns.model_dump(include={"text", "prompt", "messages"}, exclude_none=True)
    return Augmenter(stage.data.augmentation, stage.objective, seed, **named)


def _groups(stage: Stage) -> dict[str, str]:
    if not any(guard.type is GuardType.DANN for guard in stage.regularization or []):
        return {}
    return stage.data.columns.model_dump(include={*GROUPS}, exclude_none=True)


def _validation(validation: Validation | None) -> Source | None:
    if validation is None or validation.uri is None:
        return None
    return Source.model_construct(
        uri=validation.uri, format=validation.format, revision=validation.revision, credentials=validation.credentials
    )
