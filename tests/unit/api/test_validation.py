"""Warnings, words and edges of validation that no other judge speaks of."""

from __future__ import annotations

import datetime
import math
import re
import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from finetune_api.problem import Severity, nearest
from finetune_api.schema import models
from finetune_api.shape import FORMS
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.runtime import ClusterFineTuneRuntime
from finetune_api.v1alpha1.training import CLASSIFIER
from finetune_api.validation import load_problems, validate
from tests.builders import edited, job, stage, suite
from tests.manifests import VALID


@pytest.mark.parametrize(
    ("method", "rate", "warned"),
    [
        ("full", 2e-5, False),
        ("full", 1e-2, True),
        ("full", 1e-8, True),
        ("partial", 1e-2, True),
        ("lora", 1e-4, False),
        ("lora", 1e-3, False),
        ("lora", 0.1, True),
        ("headOnly", 1e-2, False),
        ("headOnly", 1, True),
    ],
)
def test_unusual_learning_rates_are_warned_of(method: str, rate: float, warned: bool) -> None:
    found, problems = validate(job(stage("only", method=method, training={"learningRate": rate})))
    assert found is not None
    assert [(problem.path, problem.severity) for problem in problems] == [
        ("spec.stages[0].training.learningRate", Severity.WARNING)
    ] * warned


@pytest.mark.parametrize(
    ("method", "training", "field", "usual"),
    [
        ("full", {"perDeviceTrainBatchSize": 1}, "perDeviceTrainBatchSize", "2 to 512 rows an optimizer step pass unwarned (Devlin"),
        ("full", {"perDeviceTrainBatchSize": 64, "gradientAccumulationSteps": 16}, "perDeviceTrainBatchSize", "2 to 512 rows"),
        ("full", {"gradientAccumulationSteps": 4}, None, ""),
        ("ia3", {"perDeviceTrainBatchSize": 1}, None, ""),
        ("lora", {"warmupRatio": 0.5}, "warmupRatio", "shares up to 0.3 pass unwarned (LoRA's authors"),
        ("lora", {"warmupSteps": 60, "maxSteps": 100}, "warmupSteps", "shares of maxSteps up to 0.3 pass unwarned"),
        ("lora", {"warmupSteps": 60, "numTrainEpochs": 1}, None, ""),
        (
            "lora",
            {"learningRate": 1},
            "learningRate",
            "rates from 1e-06 to 1e-02 pass unwarned (LoRA's authors use 5e-4",
        ),
    ],
)
def test_what_is_far_outside_the_usual_is_warned_of_with_who_uses_what(
    method: str, training: dict[str, Any], field: str | None, usual: str
) -> None:
    found, problems = validate(job(stage("only", method=method, training=training)))
    assert found is not None
    assert [(problem.path, problem.severity) for problem in problems] == [(f"spec.stages[0].training.{field}", Severity.WARNING)] * bool(
        field
    )
    assert all(usual in str(problem) for problem in problems)


@pytest.mark.parametrize(
    ("objectives", "measured"),
    [
        (["supervised"], "classification"),
        (["causalLanguageModeling"], "maskedLanguageModeling"),
        (["maskedLanguageModeling"], "supervised"),
    ],
)
def test_suites_that_never_apply_are_warned_of(objectives: list[str], measured: str) -> None:
    document = job(*(stage("only", objective) for objective in objectives), evaluation={"suites": [suite("idle", measured)]})
    found, (problem,) = validate(document)
    assert found is not None
    assert (problem.path, problem.severity) == ("spec.evaluation.suites[0].objective", Severity.WARNING)
    assert "never applicable" in problem.message


@pytest.mark.parametrize(
    ("edits", "path", "says"),
    [
        ({"kind": "FinetuneJob"}, "kind", "FineTuneJob"),
        ({"apiVersion": "finetune.dev/v1"}, "apiVersion", "finetune.dev/v1alpha1"),
        ({"spec.seed": datetime.date(2026, 1, 1)}, "spec.seed", "a date"),
        ({"spec.stages[0].training.learningRate": math.nan}, "spec.stages[0].training.learningRate", "out of bounds"),
        ({"spec.stages[0].training.learningRate": math.inf}, "spec.stages[0].training.learningRate", "out of bounds"),
        ({"spec.stages[0].training.learningRate": 50}, "spec.stages[0].training.learningRate", "at most 10 (2e-5 to 1e-3 is usual)"),
        ({"spec.stages[1]": None}, "spec.stages[1]", "empty (null)"),
        ({"spec.stages[1]": "task"}, "spec.stages[1]", 'the text "task"'),
        ({"spec.model": True}, "spec.model", "true (true or false)"),
        ({"spec.stages[0].zzz": None}, "spec.stages[0].zzz", "there is no such field"),
        ({"spec.stages[0].data.columns": {"text": "x" * 500}}, "spec.stages[0].data.columns.text", "(500 characters)"),
    ],
)
def test_words(edits: dict[str, Any], path: str, says: str) -> None:
    base = edited(job(), {"spec.evaluation": {}})
    problems = load_problems(edited(base, edits))
    assert [problem.path for problem in problems] == [path]
    assert says in str(problems[0])


@pytest.mark.parametrize("kind", [FineTuneJob, ClusterFineTuneRuntime])
def test_every_form_is_told_in_words(kind: type[BaseModel]) -> None:
    """Not as the regular expression that it is."""
    fields = [field for model in models(kind) for field in model.model_json_schema()["properties"].values()]
    patterns = set(re.findall(r"'pattern': '(.*?)'[,}]", str(fields)))
    assert patterns
    assert [pattern for pattern in patterns if not any(part in pattern for part, _ in FORMS)] == []


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("perDeviceTrainBatchSize", "8", "write 8 without quotes"),
        ("learningRate", "0.001", "write 0.001 without quotes"),
        ("learningRate", "2e-5", "write 2.0e-05 without quotes, and with a dot before e"),
        ("learningRate", "small", "write a number"),
    ],
)
def test_a_number_in_quotes_gets_advice_that_fits_it(field: str, value: str, hint: str) -> None:
    (problem,) = load_problems(job(stage("only", training={field: value})))
    assert problem.hint == hint


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("all-linear", "write [all-linear], since this field takes several"),
        ("q_proj", "write [q_proj], since this field takes several"),
        ("q_proj, v_proj", "write [q_proj, v_proj], since this field takes several"),
        ("a: b", 'write ["a: b"], since this field takes several'),
    ],
)
def test_one_name_where_a_list_is_needed_is_shown_in_a_list(value: str, hint: str) -> None:
    (problem,) = load_problems(edited(job(stage("only")), {"spec.stages[0].method.lora": {"targetModules": value}}))
    assert problem.hint == hint


def test_a_key_that_is_no_text() -> None:
    found, problems = validate({**job(), 3: 4})
    assert found is None
    assert "3" in problems[0].path


def test_a_broken_field_is_told_once() -> None:
    """What depends on a refused objective, or on a hand-over under a misspelt name, is not judged."""
    document = job(
        stage("a", "supervise", handover="merge", data={"train": [{"uri": "file://x", "format": "text"}], "columns": {"text": "t"}}),
        stage("b"),
    )
    assert [problem.path for problem in load_problems(document)] == ["spec.stages[0].objective", "spec.stages[0].handover"]


def test_a_model_that_is_made_directly_obeys_the_rules_too() -> None:
    with pytest.raises(ValidationError, match=r"spec.stages\[0\].handOver: a stage that is followed by another"):
        FineTuneJob.model_validate(job(stage("a"), stage("b")))


@pytest.mark.parametrize(
    ("word", "names", "meant"),
    [
        ("learning_rate", ["learningRate", "lrSchedulerType"], "learningRate"),
        ("LEARNINGRATE", ["learningRate"], "learningRate"),
        ("epochs", ["numTrainEpochs", "maxSteps"], "numTrainEpochs"),
        ("batchSize", ["perDeviceTrainBatchSize", "perDeviceEvalBatchSize"], "perDeviceEvalBatchSize"),
        ("zzz", ["learningRate"], None),
        ("x", [], None),
    ],
)
def test_nearest(word: str, names: list[str], meant: str | None) -> None:
    assert nearest(word, names) == meant


def test_needs_neither_torch_nor_yaml() -> None:
    code = "import sys, finetune_api.validation, finetune_api.plan; print(sorted({'torch', 'yaml', 'transformers', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("place", "fields", "path"),
    [
        ("spec.model", {"uri": "hf://a/b"}, "spec.model.credentials"),
        ("spec.stages[0].data.train[0]", {"uri": "hf://datasets/a/b"}, "spec.stages[0].data.train[0].credentials"),
        ("spec.stages[0].data.validation", {"uri": "hf://datasets/a/b"}, "spec.stages[0].data.validation.credentials"),
        ("spec.evaluation.suites[0].data", {"uri": "hf://datasets/a/b"}, "spec.evaluation.suites[0].data.credentials"),
    ],
)
def test_a_secret_that_only_the_runtime_can_give_is_warned_of(place: str, fields: dict[str, str], path: str) -> None:
    warned_of({place: {**fields, "credentials": "hub-tokn"}}, path, "two stages with suites and gates")


def test_a_classifier_s_secret_is_warned_of_too() -> None:
    path = f"spec.stages[1].{CLASSIFIER}.credentials"
    warned_of({path: "hub-tokn"}, path, "early stopping by the Instruction Following Score")


def warned_of(edits: dict[str, Any], path: str, name: str) -> None:
    found, (problem,) = validate(edited(VALID[name], {"spec.references.secrets": [{"name": "hub-token", "secretName": "x"}], **edits}))
    assert found is not None
    assert (problem.path, problem.severity) == (path, Severity.WARNING)
    assert "names no Secret of this job" in problem.message
    assert "did you mean hub-token?" in problem.hint
