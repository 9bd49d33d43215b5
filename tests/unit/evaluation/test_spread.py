"""Means, deviations and intervals over seeds, and by how much staging helped or hurt."""

from __future__ import annotations

import pytest

from finetune_api import constants as c
from finetune_api.v1alpha1.evaluation import Metric
from finetune_api.v1alpha1.stage import Objective
from finetune_api.v1alpha1.status import EvaluationStatus
from finetune_trainer.evaluation.results import Estimate, PointResult, SuiteResult
from finetune_trainer.evaluation.spread import T_QUANTILES, ArmsResult, comparison, spread, spreads, with_arms


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], (3.0, 0.0, 3.0, 3.0)),
        ([1.0, 3.0], (2.0, 1.41421, -10.7062, 14.7062)),
        # R: t.test(c(3.31, 3.27, 3.4)): mean 3.326667, 95 % 3.160986 to 3.492347
        ([3.31, 3.27, 3.4], (3.326667, 0.0666, 3.161, 3.4923)),
    ],
)
def test_a_spread_is_students(values: list[float], expected: tuple[float, ...]) -> None:
    assert spread(values) == pytest.approx(expected, abs=5e-4)


def test_there_is_a_quantile_for_every_number_of_seeds() -> None:
    assert len(T_QUANTILES) == c.MAX_SEEDS - 1
    spread([float(number) for number in range(c.MAX_SEEDS)])


@pytest.mark.parametrize(
    ("metric", "pairs", "paired", "gain", "verdict"),
    [
        (Metric.LOSS, [(3.0, 3.5)], Estimate(value=-0.5, low=-0.7, high=-0.3, rows=40), (0.5, 0.3, 0.7), "Helped"),
        (Metric.LOSS, [(3.5, 3.0)], Estimate(value=0.5, low=0.3, high=0.7, rows=40), (-0.5, -0.7, -0.3), "Hurt"),
        (Metric.ACCURACY, [(0.5, 0.6)], Estimate(value=-0.1, low=-0.2, high=0.05, rows=40), (-0.1, -0.2, 0.05), "Unclear"),
        (Metric.ACCURACY, [(0.7, 0.6), (0.8, 0.69), (0.6, 0.5)], None, (0.10333, 0.08899, 0.11768), "Helped"),
        (Metric.LOSS, [(3.0, 3.4), (3.2, 3.1)], None, (0.15, -3.0265, 3.3265), "Unclear"),
    ],
    ids=["lower is better", "negative transfer", "rows leave it open", "three seeds", "two seeds that disagree"],
)
def test_staging_helped_or_hurt_where_the_interval_leaves_out_zero(
    metric: Metric, pairs: list[tuple[float, float]], paired: Estimate | None, gain: tuple[float, ...], verdict: str
) -> None:
    found = comparison("in-domain", metric, "task", pairs, paired)
    assert found is not None
    assert (found.gain, found.low, found.high) == pytest.approx(gain, abs=5e-4)
    assert (found.verdict, found.over) == (verdict, "40 rows" if paired else f"{len(pairs)} seeds")


def test_an_interval_over_a_few_rows_is_shown_and_not_judged() -> None:
    found = comparison("knowledge", Metric.PERPLEXITY, "task", [(27.86, 26.52)], Estimate(value=1.34, low=1.29, high=1.35, rows=9))
    assert found is not None
    assert (found.verdict, found.over, found.gain) == ("Unclear", "9 rows, too few to tell", -1.34)


def test_one_seed_whose_rows_cannot_be_paired_is_not_compared() -> None:
    assert comparison("in-domain", Metric.LOSS, "task", [(3.0, 3.5)], None) is None


def point(stage: str, value: float) -> PointResult:
    estimates = {Metric.LOSS: Estimate(value=value, low=value - 1, high=value + 1, rows=9)}
    return PointResult(
        point=f"0-{stage}", stage=stage, suites=[SuiteResult(name="test", objective=Objective.SUPERVISED, estimates=estimates)]
    )


def test_a_status_tells_the_last_stages_spread_beside_the_published_seed() -> None:
    seeds = [{"domain": point("domain", 5.0), "task": point("task", value)} for value in (3.0, 3.2)]
    entry = EvaluationStatus(suite="test", metric="loss")
    compared = comparison("test", Metric.LOSS, "task", [(3.0, 3.4), (3.2, 3.5)], None)
    assert compared is not None
    (told,) = with_arms([entry], ArmsResult(published="seed-1", spreads=spreads(seeds), comparisons=[compared]))
    assert told.seeds is not None and told.direct is not None
    assert (told.seeds.mean, told.direct.value, told.direct.gain) == pytest.approx((3.1, 3.45, 0.35))
    assert with_arms([entry], None) == [entry]


def test_one_seed_has_no_spread() -> None:
    assert spreads([{"task": point("task", 3.0)}]) == []
