"""What several seeds and a comparison come to, in figures. Pure: measured points in, means, deviations and intervals out.

Over seeds the interval is Student's t of the mean (Gosset 1908): it says how far the mean would move on other seeds, and with two seeds it is
as wide as two seeds are worth. One seed's comparison is paired over the suite's rows by bootstrap; several seeds' over the seeds, whose
differences hold the rows' share too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from finetune_api.base import WireModel
from finetune_api.v1alpha1.evaluation import Metric
from finetune_api.v1alpha1.status import DirectScore, EvaluationStatus, SeedSpread, SeedsStatus
from finetune_trainer.evaluation.metrics import LOWER_IS_BETTER
from finetune_trainer.evaluation.results import Estimate, PointResult, estimate

Verdict = Literal["Helped", "Hurt", "Unclear"]
FEWEST_ROWS: Final = 10
"""A bootstrap over fewer draws the same few again and again, and its interval is far too narrow."""
T_QUANTILES: Final = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""Of Student's t at 0.975 with 1, 2, … degrees of freedom: one less than MAX_SEEDS of them."""


class Spread(WireModel):
    """A metric of a suite after a stage, over the seeds."""

    suite: str
    metric: Metric
    stage: str
    values: list[float]
    """One a seed, in the manifest's order."""
    mean: float
    deviation: float
    low: float
    high: float


class Comparison(WireModel):
    """A metric of a suite after a stage, with and without the stages before it."""

    suite: str
    metric: Metric
    stage: str
    staged: list[float]
    """With them: one a seed, in the manifest's order."""
    direct: list[float]
    """Without."""
    gain: float
    """By how much it is better with them, in the metric's unit."""
    low: float
    high: float
    over: str
    """What the interval is over: `120 rows`, `3 seeds`."""
    enough: bool = True
    """Whether these are enough for an interval to mean anything."""

    @property
    def verdict(self) -> Verdict:
        if not self.enough:
            return "Unclear"
        return "Helped" if self.low > 0 else "Hurt" if self.high < 0 else "Unclear"


class Length(WireModel):
    """How much an arm trained: the budgets, side by side."""

    arm: str
    """In words."""
    stage: str
    steps: int
    """Optimizer steps."""
    step_used: int
    """Of the weights that were measured: the last, or the best."""


class ArmsResult(WireModel):
    """RUN/arms.json: what the arms of a run came to, as far as they are."""

    published: str
    """Name of the arm that is published."""
    seeds: SeedsStatus | None = None
    spreads: list[Spread] = []
    comparisons: list[Comparison] = []
    lengths: list[Length] = []


def spread(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Return mean, standard deviation, and the ends of the mean's 95 % interval; of one value there is no more to say than itself."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, 0.0, mean, mean
    deviation = statistics.stdev(values)
    half = T_QUANTILES[len(values) - 2] * deviation / math.sqrt(len(values))
    return mean, deviation, mean - half, mean + half


def spreads(points: Sequence[Mapping[str, PointResult]]) -> list[Spread]:
    """Return every metric that each seed has. points: of each seed, by stage, in the stages' order."""
    found = []
    for stage, first in points[0].items() if len(points) > 1 else []:
        for suite in first.suites:
            for metric in suite.estimates:
                values = [one.value for seed in points if (one := estimate(seed.get(stage), suite.name, metric))]
                if len(values) == len(points):
                    mean, deviation, low, high = spread(values)
                    found.append(
                        Spread(
                            suite=suite.name,
                            metric=metric,
                            stage=stage,
                            values=values,
                            mean=mean,
                            deviation=deviation,
                            low=low,
                            high=high,
                        )
                    )
    return found


def comparison(suite: str, metric: Metric, stage: str, pairs: Sequence[tuple[float, float]], paired: Estimate | None) -> Comparison | None:
    """Return what the stages before `stage` did to a metric. pairs: (staged, direct) of each seed; paired: of one seed, staged less direct over rows."""
    sign, enough = -1.0 if metric in LOWER_IS_BETTER else 1.0, True
    if len(pairs) > 1:
        gain, _, low, high = spread([sign * (staged - direct) for staged, direct in pairs])
        over = f"{len(pairs)} seeds"
    elif paired is not None:
        gain, low, high = sign * paired.value, *sorted((sign * paired.low, sign * paired.high))
        enough = paired.rows >= FEWEST_ROWS
        over = f"{paired.rows} rows{'' if enough else ', too few to tell'}"
    else:
        return None
    return Comparison(
        suite=suite,
        metric=metric,
        stage=stage,
        staged=[staged for staged, _ in pairs],
        direct=[direct for _, direct in pairs],
        gain=gain,
        low=low,
        high=high,
        over=over,
        enough=enough,
    )


def with_arms(evaluation: Sequence[EvaluationStatus], arms: ArmsResult | None) -> list[EvaluationStatus]:
    """Add to what the published arm measured what all of them came to."""
    if arms is None:
        return list(evaluation)
    over = {(one.suite, str(one.metric)): one for one in arms.spreads}  # the last stage's comes last
    against = {(one.suite, str(one.metric)): one for one in arms.comparisons}
    return [_with(entry, over.get((entry.suite, entry.metric)), against.get((entry.suite, entry.metric))) for entry in evaluation]


def _with(entry: EvaluationStatus, over: Spread | None, against: Comparison | None) -> EvaluationStatus:
    seeds = None if over is None else SeedSpread(mean=over.mean, deviation=over.deviation, low=over.low, high=over.high)
    direct = against and DirectScore(
        stage=against.stage,
        value=statistics.fmean(against.direct),
        gain=against.gain,
        low=against.low,
        high=against.high,
        verdict=against.verdict,
    )
    return entry.model_copy(update={"seeds": seeds, "direct": direct})
