"""The plan: which stages share a process, what each is told, and a hash that follows what decides the result and nothing else."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from finetune_api.plan import Runtime, config_hash, plan, resolve
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.method import TABLE, MethodType
from finetune_api.validation import validate
from finetune_api.wire import SegmentKind, TrainerConfig
from tests.builders import Document, edited, job, stage
from tests.manifests import VALID

RUNTIME = Runtime(run_folder="/runs/example", threads=2)


def parsed(document: Document) -> FineTuneJob:
    found, problems = validate(document)
    assert found is not None, problems
    return found


def _stages(*gpus: int | None) -> Document:
    last = len(gpus) - 1
    return job(
        *(
            stage(
                f"s{index}", **({} if count is None else {"resources": {"gpus": count}}), **({} if index == last else {"handOver": "merge"})
            )
            for index, count in enumerate(gpus)
        )
    )


@pytest.mark.parametrize(
    ("gpus", "groups"),
    [
        ((None,), [["s0"]]),
        ((1, 1, 1), [["s0", "s1", "s2"]]),
        ((1, 2), [["s0"], ["s1"]]),
        ((1, 2, 2, 1), [["s0"], ["s1", "s2"], ["s3"]]),
        ((None, 0), [["s0"], ["s1"]]),
    ],
    ids=["one stage", "equal", "different", "contiguous only", "none asked is not zero"],
)
def test_contiguous_stages_with_equal_resources_share_a_segment(gpus: tuple[int | None, ...], groups: list[list[str]]) -> None:
    prepare, *train = plan(parsed(_stages(*gpus)), runtime=RUNTIME).segments
    assert prepare.segment.kind is SegmentKind.PREPARE
    assert prepare.segment.gpus is None
    assert prepare.segment.stages == [name for group in groups for name in group]
    assert [config.segment.stages for config in train] == groups
    assert [config.segment.index for config in train] == list(range(1, len(groups) + 1))
    assert [config.segment.last for config in [prepare, *train]] == [False] * len(groups) + [True]


def test_defaults_are_filled_in_for_the_trainer() -> None:
    spec = resolve(
        parsed(
            job(*(stage(kind, method=kind, handOver="merge" if kind == "lora" else "continue") for kind in ("lora", "full")), stage("last"))
        ).spec
    )
    lora, full, _ = spec.stages
    assert lora.training.learning_rate == TABLE[MethodType.LORA].learning_rate
    assert full.training.learning_rate == TABLE[MethodType.FULL].learning_rate
    assert lora.method.lora is not None
    assert full.training.num_train_epochs == 1
    assert full.training.per_device_eval_batch_size == full.training.per_device_train_batch_size
    assert full.checkpoint.every_steps == 200
    assert (lora.training.warmup_ratio, full.training.warmup_ratio) == (0.06, 0.1)
    assert (full.training.per_device_train_batch_size, full.training.gradient_accumulation_steps) == (8, 2), "sixteen rows a step"


def test_what_is_given_is_kept() -> None:
    given = {"learningRate": 0.5, "maxSteps": 7, "perDeviceEvalBatchSize": 3}
    found = resolve(parsed(job(stage("only", training=given, checkpoint={"everyMinutes": 5}))).spec).stages[0]
    assert (found.training.learning_rate, found.training.max_steps, found.training.num_train_epochs) == (0.5, 7, None)
    assert found.training.per_device_eval_batch_size == 3
    for given, rows, batches in (({"perDeviceTrainBatchSize": 4}, 4, 1), ({"gradientAccumulationSteps": 3}, 8, 3)):
        training = resolve(parsed(job(stage("only", training={**given, "warmupSteps": 0}))).spec).stages[0].training
        assert (training.per_device_train_batch_size, training.gradient_accumulation_steps, training.warmup_ratio) == (rows, batches, None)
    assert (found.checkpoint.every_steps, found.checkpoint.every_minutes) == (None, 5)


@pytest.mark.parametrize("name", VALID)
def test_the_plan_survives_its_way_to_the_trainer(name: str) -> None:
    for config in plan(parsed(VALID[name]), runtime=RUNTIME).segments:
        assert TrainerConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("name", VALID)
def test_resolving_twice_changes_nothing(name: str) -> None:
    once = resolve(parsed(VALID[name]).spec)
    assert resolve(once) == once
    assert config_hash(once) == config_hash(parsed(VALID[name]).spec)


def _shuffled(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        names = list(value)
        dice.shuffle(names)
        return {name: _shuffled(value[name], dice) for name in names}
    return [_shuffled(item, dice) for item in value] if isinstance(value, list) else copy.deepcopy(value)


@pytest.mark.parametrize("name", VALID)
def test_hash_does_not_depend_on_the_order_of_fields(name: str) -> None:
    wanted = config_hash(parsed(VALID[name]).spec)
    for seed in range(5):
        assert config_hash(parsed(_shuffled(VALID[name], random.Random(seed))).spec) == wanted


@pytest.mark.parametrize(
    "edits",
    [
        {"spec.retry": {"maxAttempts": 9}},
        {"spec.suspend": True},
        {"spec.activeDeadlineSeconds": 5},
        {"spec.ttlSecondsAfterFinished": 5},
        {"spec.runtimeRef": {"name": "other"}},
        {"spec.references": {"claims": [{"name": "a", "claimName": "b"}]}},
        {"spec.output": {"uri": "file://elsewhere"}},
        {"spec.stages[0].checkpoint": {"everySteps": 1, "keep": 5, "asynchronous": False}},
        {"spec.stages[0].resources": {"gpus": 1}},
        {"spec.stages[0].training": {"learningRate": TABLE[MethodType.LORA].learning_rate}},
        {"metadata.name": "another"},
        {"metadata.labels": {"a": "b"}},
    ],
    ids=lambda edits: next(iter(edits)),
)
def test_hash_is_the_same(edits: dict[str, Any]) -> None:
    assert config_hash(parsed(edited(job(), edits)).spec) == config_hash(parsed(job()).spec)


@pytest.mark.parametrize(
    "edits",
    [
        {"spec.seed": 1},
        {"spec.model.uri": "hf://owner/other"},
        {"spec.model.revision": "abc"},
        {"spec.tokenizer": {"addTokens": ["<a>"]}},
        {"spec.stages[0].name": "other"},
        {"spec.stages[0].training": {"learningRate": 0.01}},
        {"spec.stages[0].training": {"weightDecay": 0.1}},
        {"spec.stages[0].data.train[0].uri": "file://other.jsonl"},
        {"spec.stages[0].handOver": "stack"},
        {"spec.stages[1].method.lora": {"r": 8}},
        {"spec.evaluation.gates": []},
        {"spec.output": {"format": ["merged"]}},
    ],
    ids=lambda edits: f"{next(iter(edits))}",
)
def test_hash_changes(edits: dict[str, Any]) -> None:
    assert config_hash(parsed(edited(job(), edits)).spec) != config_hash(parsed(job()).spec)
