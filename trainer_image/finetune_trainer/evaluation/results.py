"""What was measured at one point of a run (the base model, or after a stage), as it lies in the run folder.

RUN/evaluation/base.json, 0-domain.json, 1-task.json; the numbers a row that intervals and paired differences are made of lie beside them
in rows/POINT/SUITE.npz, the completions that the report shows in samples-POINT.json.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from finetune_api.base import WireModel
from finetune_api.v1alpha1.evaluation import Gate, Metric
from finetune_api.v1alpha1.stage import Objective
from finetune_api.v1alpha1.status import EvaluationStatus, StageScore

BASE: Final = "base"
M = TypeVar("M", bound=WireModel)


class Estimate(WireModel):
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    rows: int
    """Rows that were drawn from."""


class SuiteResult(WireModel):
    """One suite at one point."""

    name: str
    objective: Objective
    rows: int = 0
    tokens: int = 0
    """Predicted tokens in all (rows, for classification)."""
    estimates: dict[Metric, Estimate] = {}
    """The metrics that the suite asks for, in its order."""
    changes: dict[Metric, Estimate] = {}
    """Each figure less the base's on the same rows, with the interval of the paired difference. Empty for the base."""
    bits_per_byte: Estimate | None = None
    """Only where the tokenizer was extended: perplexity is not comparable with another tokenizer's."""
    not_applicable: str | None = None
    """Why there is nothing: the model at this point has no head for the objective."""
    note: str | None = None
    """What a reader must know to read the figures (an archived head, the decoding)."""


class GateVerdict(WireModel):
    """One gate, judged."""

    gate: Gate
    stage: str
    passed: bool
    value: Estimate | None = None
    reference: Estimate | None = None
    reference_point: str = BASE
    improvement: float | None = None
    """In the metric's unit, positive where the metric got better."""
    required: float | None = None
    """The least improvement that passes: negative for maxRegression."""
    message: str
    """A sentence with both figures and their intervals."""


class PointResult(WireModel):
    """Everything that was measured at one point."""

    point: str
    """base, or INDEX-STAGE."""
    stage: str | None = None
    """The stage before it; None for the base."""
    suites: list[SuiteResult] = []
    gates: list[GateVerdict] = []
    """The gates of this stage, once judged."""

    def suite(self, name: str) -> SuiteResult | None:
        return next((suite for suite in self.suites if suite.name == name), None)


class Sample(WireModel):
    """One completion for the report."""

    row: str
    """Content hash of the row."""
    prompt: str
    """The prompt's own lines: those that all samples share, such as a chat template's preamble, are left out."""
    full_prompt: str = ""
    """All that the model was given, special tokens left out."""
    reference: str
    completion: str


class PointSamples(WireModel):
    """The completions of one point."""

    point: str
    suite: str
    max_new_tokens: int
    samples: list[Sample]


def point_name(index: int | None, stage: str | None) -> str:
    """`base`, or the stage's index from 0 and its name."""
    return BASE if stage is None else f"{index}-{stage}"


def point_path(folder: Path, point: str) -> Path:
    return folder / f"{point}.json"


def rows_path(folder: Path, point: str, suite: str) -> Path:
    return folder / "rows" / point / f"{suite}.npz"


def samples_path(folder: Path, point: str) -> Path:
    return folder / f"samples-{point}.json"


def write(path: Path, document: WireModel) -> None:
    """Write a result: whole after a crash, or not there. `path` is one of the paths above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(document.model_dump_json(exclude_none=True, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read(path: Path, kind: type[M]) -> M | None:
    """Read a result; None where it was not measured (yet)."""
    return kind.model_validate_json(path.read_bytes()) if path.exists() else None


def read_points(folder: Path, stages: Sequence[str]) -> list[PointResult]:
    """Read what was measured so far: the base, then after each stage, in the order of the stages."""
    names = [BASE, *(point_name(index, stage) for index, stage in enumerate(stages))]
    return [found for name in names if (found := read(point_path(folder, name), PointResult)) is not None]


def to_status(points: Iterable[PointResult]) -> list[EvaluationStatus]:
    """Turn the points into what the resource's status and `result.json` show: one entry a suite and metric, in the suites' order."""
    points = list(points)
    base = next((point for point in points if point.stage is None), None)
    stages = [point for point in points if point.stage is not None]
    verdicts = [verdict for point in points for verdict in point.gates]
    keys = dict.fromkeys((suite.name, metric) for point in points for suite in point.suites for metric in suite.estimates)
    return [_status(suite, metric, base, stages, verdicts) for suite, metric in keys]


def _status(
    suite: str, metric: Metric, base: PointResult | None, stages: Sequence[PointResult], verdicts: Sequence[GateVerdict]
) -> EvaluationStatus:
    before = estimate(base, suite, metric)
    scores = [(point.stage or "", estimate(point, suite, metric)) for point in stages]
    last = scores[-1][1] if scores else None
    judged = [verdict.passed for verdict in verdicts if (verdict.gate.suite, verdict.gate.metric) == (suite, metric)]
    return EvaluationStatus.model_validate(
        {
            "suite": suite,
            "metric": str(metric),
            "baseline": before.value if before else None,
            "baselineLow": before.low if before else None,
            "baselineHigh": before.high if before else None,
            "stages": [
                StageScore(stage=name, value=found.value, low=found.low, high=found.high) if found else StageScore(stage=name)
                for name, found in scores
            ],
            "delta": last.value - before.value if last and before else None,
            "gate": ("Passed" if all(judged) else "Failed") if judged else None,
        }
    )


def estimate(point: PointResult | None, suite: str, metric: Metric) -> Estimate | None:
    """A figure of a point, or None where it was not measured or not applicable."""
    result = point.suite(suite) if point else None
    return result.estimates.get(metric) if result else None
