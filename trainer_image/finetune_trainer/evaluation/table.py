"""The evaluation as a table: a row a suite and metric, a column the base and each stage. Pure; the report and the model card show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.v1alpha1.evaluation import Metric
from finetune_api.v1alpha1.status import EvaluationStatus
from finetune_trainer.evaluation.metrics import LOWER_IS_BETTER


@dataclass(frozen=True)
class Cell:
    """One figure; `value` None where it is not applicable or was not measured."""

    point: str
    value: float | None
    low: float | None = None
    high: float | None = None
    seeds: tuple[float, ...] = ()
    """Of a mean over seeds: each of them."""
    direct: bool = False
    """Whether it is of a stage that was trained without those before it."""


@dataclass(frozen=True)
class Row:
    """One metric of one suite: the base first, then after each stage."""

    suite: str
    metric: str
    cells: list[Cell]
    gate: str | None

    @property
    def lower_is_better(self) -> bool:
        return self.metric in {str(metric) for metric in LOWER_IS_BETTER}

    @property
    def improvement(self) -> float | None:
        """Last against first, positive where it got better."""
        first, last = self.cells[0].value, self.cells[-1].value
        if first is None or last is None or len(self.cells) < 2:
            return None
        return first - last if self.lower_is_better else last - first

    @property
    def apart(self) -> bool:
        """Whether the two intervals do not touch: a change that is certainly none of the sample's."""
        first, last = self.cells[0], self.cells[-1]
        if first.low is None or first.high is None or last.low is None or last.high is None:
            return False
        return last.high < first.low or first.high < last.low


def table(evaluation: Sequence[EvaluationStatus]) -> list[Row]:
    """Return the rows in the order of the status."""
    return [
        Row(
            suite=entry.suite,
            metric=entry.metric,
            cells=[
                Cell("base", entry.baseline, entry.baseline_low, entry.baseline_high),
                *(Cell(score.stage, score.value, score.low, score.high) for score in entry.stages),
            ],
            gate=entry.gate,
        )
        for entry in evaluation
    ]


def figure(value: float | None, metric: str) -> str:
    """A figure as it is printed: three decimals of a share or a loss, four digits of a perplexity."""
    if value is None:
        return "–"
    return f"{value:,.{decimals(value, metric)}f}"


def decimals(value: float, metric: str) -> int:
    """Decimals that `figure` prints."""
    if metric != Metric.PERPLEXITY:
        return 3
    return max(0, min(3, 3 - len(str(int(abs(value)))) + 1))


def cell_text(cell: Cell, metric: str) -> str:
    """A figure and its interval. Example: 3.309 (3.210–3.410)"""
    if cell.value is None:
        return "–"
    if cell.low is None or cell.high is None:
        return figure(cell.value, metric)
    return f"{figure(cell.value, metric)} ({figure(cell.low, metric)}–{figure(cell.high, metric)})"
