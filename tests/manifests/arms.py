"""Manifests of several seeds and of a comparison, and those that break a rule about them."""

from __future__ import annotations

from typing import Any, Final

from tests.builders import Document, edited
from tests.manifests.cases import JOB, Broken

_DEV: Final[dict[str, Any]] = {"spec.stages[1].data.validation": {"uri": "hf://datasets/owner/data/dev.jsonl"}}
SEVERAL: Final = edited(JOB, {"spec.seeds": [1, 2, 3], **_DEV})
COMPARED: Final = edited(JOB, {"spec.stages[1].compareWith": "direct"})

ARMS_VALID: Final[dict[str, Document]] = {
    "several seeds": SEVERAL,
    "several seeds, a share of the rows to choose by": edited(
        JOB, {"spec.seeds": [1, 2], "spec.stages[1].data.validation": {"fraction": 0.1}}
    ),
    "one seed in a list, and nothing to choose by": edited(JOB, {"spec.seeds": [1]}),
    "a stage compared": COMPARED,
    "a stage compared, with several seeds": edited(SEVERAL, {"spec.stages[1].compareWith": "direct"}),
}

ARMS: Final = (
    Broken("a seed and seeds", {"spec.seed": 7, "spec.seeds": [1]}, "spec.seeds", "write one of seed and seeds"),
    Broken("a seed twice", {"spec.seeds": [1, 2, 1]}, "spec.seeds[2]", "seeds[0] says this already", base=SEVERAL),
    Broken(
        "several seeds and nothing to choose by",
        {"spec.seeds": [1, 2]},
        "spec.stages[1].data.validation",
        "chosen on the last stage's validation",
    ),
    Broken(
        "a seed chosen on what a gate judges",
        {"spec.evaluation.suites[0].data.uri": "hf://datasets/owner/data/dev.jsonl"},
        "spec.evaluation.gates[0].suite",
        "gate a suite of other rows",
        base=SEVERAL,
    ),
    Broken(
        "the first stage compared", {"spec.stages[0].compareWith": "direct"}, "spec.stages[0].compareWith", "starts from the base itself"
    ),
    Broken(
        "two stages compared",
        {"spec.stages[1].handOver": "merge", "spec.stages[2]": {**COMPARED["spec"]["stages"][1], "name": "more"}},
        "spec.stages",
        "keep compareWith on the stage",
        base=COMPARED,
    ),
    Broken(
        "a stage compared that no suite measures",
        {"spec.evaluation": {"suites": [JOB["spec"]["evaluation"]["suites"][1]]}},
        "spec.stages[1].compareWith",
        "add a suite with the stage's objective",
        base=COMPARED,
    ),
)

ARM_SHAPES: Final = (
    Broken("no seeds", {"spec.seeds": []}, "spec.seeds", "at least 1", base=SEVERAL),
    Broken("too many seeds", {"spec.seeds": list(range(11))}, "spec.seeds", "at most 10", base=SEVERAL),
    Broken("a seed below zero", {"spec.seeds": [1, -1]}, "spec.seeds[1]", "at least 0", base=SEVERAL),
    Broken("compared with nothing known", {"spec.stages[1].compareWith": "base"}, "spec.stages[1].compareWith", "direct"),
)
