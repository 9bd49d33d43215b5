"""The intervals: seeded, bounded in memory, as wide as theory says, and paired where two models share rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from finetune_api.v1alpha1.evaluation import Metric
from finetune_trainer.evaluation import bootstrap
from finetune_trainer.evaluation.bootstrap import CHUNK_DRAWS, draws, estimates, paired_difference
from finetune_trainer.evaluation.metrics import STATISTICS
from finetune_trainer.evaluation.records import RowRecords

LOSS = STATISTICS[Metric.LOSS]


def rows_of(nll: np.ndarray[tuple[int], np.dtype[np.float64]]) -> RowRecords:
    empty = RowRecords.empty([str(index) for index in range(len(nll))])
    return replace(empty, nll=nll, tokens=np.ones(len(nll), dtype=np.int64))


NOISE = np.random.default_rng(1).normal(3.0, 1.0, 400)


def test_the_interval_of_a_mean_is_about_two_standard_errors_each_way() -> None:
    found = estimates(rows_of(NOISE), [LOSS], seed=5)[0]
    error = NOISE.std() / 20
    assert found is not None
    assert found.value == pytest.approx(NOISE.mean())
    assert found.rows == 400
    assert found.value - found.low == pytest.approx(1.96 * error, rel=0.15)
    assert found.high - found.value == pytest.approx(1.96 * error, rel=0.15)


def test_the_same_seed_draws_the_same_rows_and_another_does_not() -> None:
    first, again, other = (estimates(rows_of(NOISE), [LOSS], seed=seed)[0] for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_resamples_are_drawn_in_chunks_of_bounded_size() -> None:
    rows = CHUNK_DRAWS // 3
    chunks = list(draws(rows, seed=1, resamples=4))
    assert [len(chunk) for chunk in chunks] == [3, 1]
    assert all((chunk.sum(axis=1) == rows).all() for chunk in chunks)


def test_pairing_takes_the_difficulty_of_the_rows_out() -> None:
    """Every row 0.1 better: the difference is certain, though both intervals overlap widely."""
    before, after = rows_of(NOISE), rows_of(NOISE - 0.1)
    apart = [found for records in (before, after) if (found := estimates(records, [LOSS], seed=5)[0]) is not None]
    paired = paired_difference(after, before, LOSS, seed=5)
    assert apart[1].high > apart[0].low
    assert paired is not None
    assert (paired.low, paired.value, paired.high) == pytest.approx((-0.1, -0.1, -0.1))


def test_other_rows_cannot_be_paired() -> None:
    other = replace(rows_of(NOISE), ids=np.array([f"x{index}" for index in range(len(NOISE))]))
    with pytest.raises(ValueError, match="the same rows"):
        paired_difference(other, rows_of(NOISE), LOSS, seed=5)


def test_what_cannot_be_counted_has_no_estimate() -> None:
    assert estimates(rows_of(NOISE), [STATISTICS[Metric.EXACT_MATCH]], seed=5) == [None]
    assert estimates(rows_of(NOISE[:0]), [LOSS], seed=5) == [None]


def test_the_class_metrics_can_be_resampled_without_a_class() -> None:
    """A rare class is missing in many resamples; it is then left out of their macro average, as scikit-learn would."""
    truth = np.array([0] * 30 + [1])
    records = replace(rows_of(np.ones(31)), truth=truth, predicted=truth, correct=np.ones(31, dtype=np.int64))
    found = estimates(records, [STATISTICS[Metric.F1_MACRO]], seed=2)[0]
    assert found is not None
    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)
    assert bootstrap.RESAMPLES >= 1000
