"""Manifests for tests: a small valid job, and edits of it by path."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Final

Document = dict[str, Any]
LEFT_OUT: Final = object()
"""As the value of an edit: take the field away."""


REQUIRED: Final[dict[str, Document]] = {
    "partial": {"partial": {"trained": ["*.0.*"]}},
    "gradual": {"gradual": {"everySteps": 5}},
    "trainableTokens": {"trainableTokens": {"tokens": ["a"]}},
}
"""Options that a method cannot do without."""


def stage(name: str, objective: str = "causalLanguageModeling", method: str = "lora", **fields: Any) -> Document:
    """Return a stage with one training file."""
    more = REQUIRED.get(method, {})
    return {
        "name": name,
        "objective": objective,
        "data": {"train": [{"uri": f"file://{name}.jsonl"}]},
        "method": {"type": method, **more},
        **fields,
    }


def suite(name: str, objective: str = "causalLanguageModeling", *metrics: str) -> Document:
    """Return a suite; its metrics default to the loss."""
    return {"name": name, "objective": objective, "data": {"uri": f"file://{name}.jsonl"}, "metrics": list(metrics or ("loss",))}


def job(*stages: Document, **spec: Any) -> Document:
    """Return a manifest with these stages; without any, a domain stage that is merged before a task stage, two suites and two gates."""
    if not stages:
        stages = (stage("domain", handOver="merge"), stage("task", "supervised"))
        spec = {
            "evaluation": {
                "suites": [
                    suite("in-domain", "supervised", "loss", "exactMatch"),
                    suite("knowledge", "causalLanguageModeling", "perplexity"),
                ],
                "gates": [
                    {"suite": "in-domain", "metric": "loss", "minImprovement": {"absolute": 0.1}},
                    {"suite": "knowledge", "metric": "perplexity", "stage": "task", "maxRegression": {"relative": 0.05}},
                ],
            },
            **spec,
        }
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "example"},
        "spec": {"model": {"uri": "hf://owner/model"}, "stages": list(stages), **spec},
    }


def edited(document: Document, edits: Mapping[str, Any]) -> Document:
    """Return a copy with other values at some paths (`spec.stages[0].name`); what is on the way there is made."""
    result = copy.deepcopy(document)
    for path, value in edits.items():
        *owners, last = parts_of(path)
        place: Any = result
        for part in owners:
            place = place.setdefault(part, {}) if isinstance(part, str) else place[part]
        if value is LEFT_OUT:
            del place[last]
        elif isinstance(last, int) and last == len(place):
            place.append(value)
        else:
            place[last] = value
    return result


def parts_of(path: str) -> list[str | int]:
    """Return ["spec", "stages", 0] for spec.stages[0]."""
    return [int(part[1:-1]) if part.startswith("[") else part for part in re.findall(r"[^.\[\]]+|\[\d+\]", path)]
