"""Percentile bootstrap over rows (Efron and Tibshirani 1993, chapter 13): how far a figure would move on another draw of the same kind of rows.

Whole rows are drawn, because the tokens of one row depend on each other. The draws depend on (rows, seed) alone, so the same seed draws
the same rows for two models: their difference is paired, which takes the rows' own difficulty out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from finetune_trainer.evaluation.metrics import Statistic, ones
from finetune_trainer.evaluation.records import Floats, RowRecords
from finetune_trainer.evaluation.results import Estimate

RESAMPLES: Final = 1000
CONFIDENCE: Final = 0.95
CHUNK_DRAWS: Final = 2_000_000
"""Draws in memory at once: at most about 50 MB, whatever the number of rows."""


def draws(rows: int, *, seed: int, resamples: int = RESAMPLES) -> Iterator[Floats]:
    """Yield (b, rows) arrays: how often each row was drawn in b resamples of `rows` rows with replacement; `resamples` in all."""
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_DRAWS // rows)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.integers(0, rows, size=(size, rows))
        drawn += np.arange(size)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def estimates(records: RowRecords, statistics: Sequence[Statistic], *, seed: int, resamples: int = RESAMPLES) -> list[Estimate | None]:
    """Return each statistic with its 95 % interval; None where it counts nothing at all (no token, no generation)."""
    functions = [_bound(records, statistic) for statistic in statistics]
    return _estimates(len(records), functions, ones(records), seed=seed, resamples=resamples)


def paired_difference(
    after: RowRecords, before: RowRecords, statistic: Statistic, *, seed: int, resamples: int = RESAMPLES
) -> Estimate | None:
    """Return statistic(after) − statistic(before) on the same rows, with its 95 % interval over paired draws.

    Raises ValueError if the two were not measured on the same rows in the same order.
    """
    if not np.array_equal(after.ids, before.ids):
        raise ValueError("a paired difference needs the same rows in both")

    def difference(weights: Floats) -> Floats:
        return statistic(after, weights) - statistic(before, weights)

    return _estimates(len(after), [difference], ones(after), seed=seed, resamples=resamples)[0]


def _bound(records: RowRecords, statistic: Statistic) -> Callable[[Floats], Floats]:
    return lambda weights: statistic(records, weights)


def _estimates(
    rows: int, functions: Sequence[Callable[[Floats], Floats]], full: Floats, *, seed: int, resamples: int
) -> list[Estimate | None]:
    if rows == 0:
        return [None for _ in functions]
    values = [float(function(full)[0]) for function in functions]
    chunks = [[function(weights) for function in functions] for weights in draws(rows, seed=seed, resamples=resamples)]
    samples = [np.concatenate([chunk[index] for chunk in chunks]) for index in range(len(functions))]
    return [_estimate(value, sample, rows) for value, sample in zip(values, samples, strict=True)]


def _estimate(value: float, samples: Floats, rows: int) -> Estimate | None:
    """A resample in which nothing was counted says nothing, and is left out."""
    known = samples[np.isfinite(samples)]
    if not np.isfinite(value) or not len(known):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    return Estimate(value=value, low=float(low), high=float(high), rows=rows)
