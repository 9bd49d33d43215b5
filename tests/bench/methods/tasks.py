"""The two tasks: their rows, their budget, and the manifest of a cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetune_api.v1alpha1.method import TABLE, MethodType
from scripts.demo_assets import ROOT, demo_folder
from tests.bench.methods.settings import CLASSES, DEFINITIONS, Setting

RUNS: Final = ROOT / "runs/bench-methods"
DATA: Final = RUNS / "data"
DOMAIN_MANIFEST: Final = Path(__file__).with_name("domain.yaml")
DOMAIN_RUN: Final = RUNS / "domain"
TASK, DOMAIN, OTHER = "task", "domain", "other"
"""The suites: the task's own, the domain's held-out text, and text of another kind."""


@dataclass(frozen=True)
class Budget:
    """What every cell of a task spends."""

    objective: str
    model: str
    rows: int
    steps: int
    batch: int
    max_length: int
    warmup: int
    metrics: tuple[str, ...]
    """Of the task's suite; the first is the score."""


BUDGETS: Final = {
    DEFINITIONS: Budget("supervised", "pvc://work/domain/artifacts/merged", 80, 10, 8, 64, 0, ("loss", "tokenAccuracy")),
    CLASSES: Budget("classification", "pvc://demo/models/minilm-l6", 208, 104, 8, 64, 10, ("accuracy", "f1Macro", "loss")),
}
TEST_ROWS: Final = 64
VALIDATION_ROWS: Final = 24
DOMAIN_ROWS: Final = 32
OTHER_ROWS: Final = 8
OTHER_LENGTH: Final = 96
CLASS_VALIDATION_ROWS: Final = 150
REPLAY_WORDS: Final = 40


def write_data() -> None:
    """Cut the demo's files to the budget. What is chosen by (validation), measured (test) and replayed has no row in common."""
    source = demo_folder() / "data"
    pairs, tests = _rows(source / "definitions-200.jsonl"), _rows(source / "definitions-test.jsonl")
    classes = _rows(source / "noun-classes-test.jsonl")
    other = _rows(source / "python-reference.jsonl")
    files = {
        "definitions-train": pairs[: BUDGETS[DEFINITIONS].rows],
        "definitions-validation": pairs[-VALIDATION_ROWS:],
        "definitions-test": tests[:TEST_ROWS],
        "domain-test": _rows(source / "glosses-2000.jsonl")[-DOMAIN_ROWS:],
        "other-test": other[:OTHER_ROWS],
        "other-replay": [_pair(row["text"]) for row in other[OTHER_ROWS:]],
        "classes-train": _rows(source / "noun-classes-train.jsonl")[: BUDGETS[CLASSES].rows],
        "classes-validation": classes[:CLASS_VALIDATION_ROWS],
        "classes-test": classes[CLASS_VALIDATION_ROWS:],
    }
    DATA.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (DATA / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _pair(text: str) -> dict[str, str]:
    """Text to be replayed among pairs: its first line, and what follows."""
    words = text.split(" ")
    return {"prompt": " ".join(words[:4]), "completion": " ".join(words[4:REPLAY_WORDS])}


def rate(setting: Setting, factor: float) -> float:
    """A learning rate as a factor of the method's default."""
    return float(f"{TABLE[MethodType(setting.type)].learning_rate * factor:.3g}")


def manifest(setting: Setting, task: str, *, seed: int, factor: float) -> dict[str, Any]:
    """The job of one cell: one stage."""
    budget = BUDGETS[task]
    training = {
        "learningRate": rate(setting, factor), "warmupSteps": budget.warmup, "maxSteps": budget.steps, "perDeviceTrainBatchSize": budget.batch,
        "perDeviceEvalBatchSize": 16, "maxLength": budget.max_length, "groupByLength": True, **setting.training,
    }  # fmt: skip
    stage = {
        "name": "task", "objective": budget.objective, "method": setting.method(task), "training": training,
        "data": {"train": _sources(setting, task), "validation": {"uri": f"pvc://work/data/{task}-validation.jsonl"}},
        **({"regularization": list(setting.guards)} if setting.guards else {}),
    }  # fmt: skip
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": f"bench-methods-{task}"},
        "spec": {
            "references": {"claims": [{"name": name, "claimName": f"finetune-{name}"} for name in ("demo", "work")]},
            "model": {"uri": budget.model},
            "seed": seed,
            "stages": [stage],
            "evaluation": {"baseline": False, "samples": {"count": 0}, "suites": _suites(task)},
        },
    }


def _sources(setting: Setting, task: str) -> list[dict[str, Any]]:
    own: dict[str, Any] = {"uri": f"pvc://work/data/{task}-train.jsonl"}
    if not setting.replay:
        return [own]
    return [{**own, "weight": 1 - setting.replay}, {"uri": "pvc://work/data/other-replay.jsonl", "weight": setting.replay, "replay": True}]


def _suites(task: str) -> list[dict[str, Any]]:
    budget = BUDGETS[task]
    own = _suite(TASK, budget.objective, f"{task}-test", budget.metrics, 64)
    if task == CLASSES:
        return [own]
    text = ("loss", "perplexity")
    return [
        own,
        _suite(DOMAIN, "causalLanguageModeling", "domain-test", text, 64),
        _suite(OTHER, "causalLanguageModeling", "other-test", text, OTHER_LENGTH),
    ]


def _suite(name: str, objective: str, data: str, metrics: Sequence[str], length: int) -> dict[str, Any]:
    data_ = {"uri": f"pvc://work/data/{data}.jsonl"}
    return {"name": name, "objective": objective, "data": data_, "metrics": list(metrics), "maxLength": length}
