"""What a case is, and the jobs that cases are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.builders import Document, edited, job, stage, suite

JOB: Final = job()
VALIDATION: Final = {"spec.stages[0].data.validation": {"fraction": 0.1}, "spec.stages[0].evalSteps": 5}
CLASSES: Final = job(stage("first", "classification", handOver="continue"), stage("second", "classification"))
MASKED: Final = job(stage("masked", "maskedLanguageModeling", handOver="merge"), stage("classes", "classification"))


def chain(*steps: str) -> Document:
    """Return a job of stages such as "lora merge": each a method and, but for the last, a hand-over; options follow, as `dora`."""
    stages = []
    for index, step in enumerate(steps):
        method, *rest = step.split()
        found = stage(f"s{index}", method=method)
        for word in rest:
            if word in ("continue", "merge", "stack"):
                found["handOver"] = word
            else:
                found["method"].setdefault("lora", {}).update(
                    {"r8": {"r": 8}, "pissa": {"initialization": "pissa"}}.get(word, {word: True})
                )
        stages.append(found)
    return job(*stages)


def gated(base: Document, objective: str, metric: str = "loss", **gate: Any) -> Document:
    evaluation = {"suites": [suite("measured", objective, metric)], "gates": [{"suite": "measured", "metric": metric, **gate}]}
    if "minImprovement" not in gate:
        evaluation["gates"][0]["maxRegression"] = {"absolute": 0.1}
    return edited(base, {"spec.evaluation": evaluation})


@dataclass(frozen=True)
class Broken:
    """A manifest with one mistake."""

    name: str
    edits: Mapping[str, Any]
    at: str
    """Where `finetune validate` says that it is."""
    says: str
    """Words of the message or the hint."""
    base: Document = field(default_factory=lambda: JOB)
    pruned: bool = False
    """An unknown field: the API server takes it away and warns, so only Python refuses it."""

    @property
    def document(self) -> Document:
        return edited(self.base, self.edits)


@dataclass(frozen=True)
class Change:
    """A change to a job that exists."""

    name: str
    edits: Mapping[str, Any]
    refused_at: str | None
    base: Document = field(default_factory=lambda: JOB)
