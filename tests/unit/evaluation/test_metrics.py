"""Metrics against numbers worked out by hand, and against scikit-learn's definitions written out class by class."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from finetune_api.v1alpha1.evaluation import Metric
from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.evaluation.metrics import OF_OBJECTIVE, STATISTICS, bits_per_byte, ones
from finetune_trainer.evaluation.records import RowRecords


def language(nll: list[float], tokens: list[int], correct: list[int], exact: list[int] | None = None) -> RowRecords:
    rows = RowRecords.empty([str(index) for index in range(len(nll))])
    return replace(
        rows,
        nll=np.array(nll, dtype=np.float64),
        tokens=np.array(tokens),
        correct=np.array(correct),
        exact=np.array(exact if exact is not None else [-1] * len(nll)),
        bytes=np.array(tokens) * 4,
    )


def classes(truth: list[int], predicted: list[int]) -> RowRecords:
    rows = RowRecords.empty([str(index) for index in range(len(truth))])
    right = np.array(truth) == np.array(predicted)
    return replace(
        rows,
        nll=np.ones(len(truth)),
        tokens=np.ones(len(truth), dtype=np.int64),
        correct=right.astype(np.int64),
        truth=np.array(truth),
        predicted=np.array(predicted),
    )


def value(records: RowRecords, metric: Metric) -> float:
    return float(STATISTICS[metric](records, ones(records))[0])


# Rows of 1 and 3 tokens: token means are not means of row means (4/4 = 1, not (1 + 1) / 2 by chance: 2 + 2 over 1 + 3).
TWO_ROWS = language(nll=[2.0, 2.0], tokens=[1, 3], correct=[0, 3], exact=[1, 0])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric.LOSS, 1.0),
        (Metric.PERPLEXITY, math.e),
        (Metric.TOKEN_ACCURACY, 0.75),
        (Metric.EXACT_MATCH, 0.5),
    ],
)
def test_token_metrics_weigh_every_token_once(metric: Metric, expected: float) -> None:
    assert value(TWO_ROWS, metric) == pytest.approx(expected, abs=1e-12)


def test_bits_per_byte_is_nll_in_bits_over_bytes() -> None:
    assert float(bits_per_byte(TWO_ROWS, ones(TWO_ROWS))[0]) == pytest.approx(4.0 / math.log(2) / 16)


# Confusion (rows true, columns predicted), classes 0..3; class 3 is predicted once and never true, class 2 is true and never predicted:
#        0  1  2  3
#   0    3  1  0  0      precision 0: 3/4   recall 0: 3/4   f1 3/4
#   1    1  2  0  1      precision 1: 2/4   recall 1: 2/4   f1 1/2
#   2    0  1  0  0      precision 2: 0/0→0 recall 2: 0/1   f1 0
#   3    0  0  0  0      precision 3: 0/1   recall 3: 0/0→0 f1 0
CONFUSED = classes(truth=[0, 0, 0, 0, 1, 1, 1, 1, 2], predicted=[0, 0, 0, 1, 0, 1, 1, 3, 1])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric.ACCURACY, 5 / 9),
        (Metric.PRECISION_MACRO, (3 / 4 + 2 / 4 + 0 + 0) / 4),
        (Metric.RECALL_MACRO, (3 / 4 + 2 / 4 + 0 + 0) / 4),
        (Metric.F1_MACRO, (3 / 4 + 1 / 2 + 0 + 0) / 4),
        (Metric.PRECISION_WEIGHTED, (4 * 3 / 4 + 4 * 2 / 4 + 1 * 0) / 9),
        (Metric.RECALL_WEIGHTED, 5 / 9),
        (Metric.F1_WEIGHTED, (4 * 3 / 4 + 4 * 1 / 2 + 1 * 0) / 9),
    ],
)
def test_class_metrics_count_an_absent_class_as_zero(metric: Metric, expected: float) -> None:
    assert value(CONFUSED, metric) == pytest.approx(expected, abs=1e-12)


def test_a_class_neither_true_nor_predicted_is_left_out_of_the_average() -> None:
    gap = classes(truth=[0, 5], predicted=[0, 5])  # classes 1 to 4 exist in the head only
    assert value(gap, Metric.F1_MACRO) == 1.0


def test_weights_are_repetitions() -> None:
    """A row of weight 2 is the row twice: what the bootstrap stands on."""
    weights = np.array([[2.0, 1, 0, 1, 1, 0, 3, 1, 1]])
    repeated = classes(
        truth=list(np.repeat(CONFUSED.truth, weights[0].astype(int))), predicted=list(np.repeat(CONFUSED.predicted, weights[0].astype(int)))
    )
    for metric in OF_OBJECTIVE[Objective.CLASSIFICATION]:
        assert float(STATISTICS[metric](CONFUSED, weights)[0]) == pytest.approx(value(repeated, metric)), metric


@pytest.mark.parametrize("metric", [Metric.LOSS, Metric.PERPLEXITY, Metric.TOKEN_ACCURACY, Metric.EXACT_MATCH])
def test_nothing_counted_is_no_number(metric: Metric) -> None:
    assert math.isnan(value(language(nll=[0.0], tokens=[0], correct=[0]), metric))


def test_every_metric_of_the_api_has_a_formula_and_an_objective() -> None:
    assert set(STATISTICS) == set(Metric) == set().union(*OF_OBJECTIVE.values())
