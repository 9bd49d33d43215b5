"""From the cells to the rows of the table: means over seeds, intervals over the rows of a suite, differences paired by row. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tests.bench.methods.results import Line
from tests.bench.methods.settings import SETTINGS, START

DRAWS: Final = 4_000
REFERENCE: Final = "lora"
"""What every row is compared with."""
GATES: Final = (0.05, 0.1)
"""By which share the perplexity on text of another kind may rise: `maxRegression: {relative: 0.05}` was fixed before anything was measured."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A mean over seeds with the 95 % bootstrap interval over rows."""

    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Row:
    """A setting on a task."""

    setting: str
    seeds: int
    rate: float
    score: Figure
    """Loss a token (definitions) or accuracy (classes)."""
    second: float
    """Token accuracy, or macro F1."""
    against: Figure | None
    """Score less that of the reference, on the same rows and seeds; None for the reference itself."""
    spread: float | None
    """Standard deviation of the score over seeds."""
    domain: float | None
    """Perplexity on the domain's held-out text."""
    other: float | None
    """Perplexity on text of another kind."""
    other_change: Figure | None
    """Its relative change from before the task: 0.1 is a tenth more."""
    share: float
    """Of the parameters, how many are trained."""
    state_mib: float
    """Trained weights, their gradients, and the optimizer's state."""
    peak_mib: int
    step: float
    """CPU seconds of a step, over those of the reference, each beside a fixed piece of work at the same moment."""
    artifact_mb: float

    def passes(self, gate: float) -> bool:
        """Whether it passes a gate on knowledge, by the point estimate as gates are judged."""
        return self.other_change is not None and self.other_change.value <= gate


def rows(lines: Sequence[Line], task: str) -> list[Row]:
    """The table of a task, in the order of the settings; what is not measured is left out."""
    by_setting: dict[str, list[Line]] = {}
    for line in lines:
        if line["task"] == task:
            by_setting.setdefault(line["setting"], []).append(line)
    if REFERENCE not in by_setting:
        return []
    start = by_setting.get(START.name, [None])[0]
    found = [setting.name for setting in SETTINGS if setting.name in by_setting and setting is not START]
    return [_row(name, by_setting[name], by_setting[REFERENCE], start) for name in found]


def versus(lines: Sequence[Line], task: str, setting: str, other: str) -> Figure | None:
    """The score of one setting less that of another, paired by row, over the seeds that both have; None where there are none."""
    sides = [
        {line["seed"]: line["suites"]["task"] for line in lines if line["task"] == task and line["setting"] == name}
        for name in (setting, other)
    ]
    shared = sides[0].keys() & sides[1].keys()
    return _difference(*([side[seed] for seed in sorted(shared)] for side in sides)) if shared else None


def _row(name: str, cells: Sequence[Line], reference: Sequence[Line], start: Line | None) -> Row:
    suite = cells[0]["suites"]["task"]
    loss = "nll" in suite["rows"]
    first, second = ("loss", "tokenAccuracy") if loss else ("accuracy", "f1Macro")
    others = [cell["suites"]["other"] for cell in cells] if start else []
    scores = [cell["suites"]["task"]["estimates"][first][0] for cell in cells]
    shared = {cell["seed"] for cell in cells} & {cell["seed"] for cell in reference}
    mine, its = ([cell["suites"]["task"] for cell in side if cell["seed"] in shared] for side in (cells, reference))
    return Row(
        setting=name,
        seeds=len(cells),
        rate=cells[0]["rate"],
        score=_mean([cell["suites"]["task"] for cell in cells]),
        second=fmean(cell["suites"]["task"]["estimates"][second][0] for cell in cells),
        against=None if name == REFERENCE or not shared else _difference(mine, its),
        spread=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        domain=fmean(cell["suites"]["domain"]["estimates"]["perplexity"][0] for cell in cells) if start else None,
        other=fmean(one["estimates"]["perplexity"][0] for one in others) if others else None,
        other_change=_relative(others, start["suites"]["other"]) if start else None,
        share=cells[0]["trained"] / cells[0]["parameters"],
        state_mib=sum(cells[0]["bytes"].values()) / 2**20,
        peak_mib=max(cell["peakMiB"] for cell in cells),
        step=_pace(cells) / _pace(reference),
        artifact_mb=cells[0]["artifactBytes"] / 1e6,
    )


def _pace(cells: Sequence[Line]) -> float:
    return fmean(cell["stepSeconds"] / cell["referenceSeconds"] for cell in cells)


def _sums(suites: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
    """What is summed over rows, and what it is divided by: (rows,) each, means over the seeds."""
    own = suites[0]["rows"]
    top, bottom = ("nll", "tokens") if "nll" in own else ("correct", None)
    numerator = np.mean([suite["rows"][top] for suite in suites], axis=0)
    denominator = np.array(own[bottom], np.float64) if bottom else np.ones(len(own[top]))
    return numerator, denominator


def _drawn(count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, count, (DRAWS, count))


def _figure(value: float, samples: Floats) -> Figure:
    low, high = np.quantile(samples, [0.025, 0.975])
    return Figure(float(value), float(low), float(high))


def _mean(suites: Sequence[Mapping[str, Any]]) -> Figure:
    numerator, denominator = _sums(suites)
    drawn = _drawn(len(numerator))
    return _figure(numerator.sum() / denominator.sum(), numerator[drawn].sum(axis=1) / denominator[drawn].sum(axis=1))


def _difference(mine: Sequence[Mapping[str, Any]], its: Sequence[Mapping[str, Any]]) -> Figure:
    """Mine less its, a token or a row, over the same draws of rows."""
    (numerator, denominator), (other, _) = _sums(mine), _sums(its)
    numerator = numerator - other
    drawn = _drawn(len(numerator))
    return _figure(numerator.sum() / denominator.sum(), numerator[drawn].sum(axis=1) / denominator[drawn].sum(axis=1))


def _relative(suites: Sequence[Mapping[str, Any]], start: Mapping[str, Any]) -> Figure:
    """The relative change of a perplexity."""
    found = _difference(suites, [start] * len(suites))
    return Figure(*(math.expm1(value) for value in (found.value, found.low, found.high)))
