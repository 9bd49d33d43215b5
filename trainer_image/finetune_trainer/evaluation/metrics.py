"""The metrics, each as a function of row records and row weights.

The point estimate is the metric at weight 1 a row; a bootstrap resample is the metric at the number of times each row was drawn. One
formula serves both, so that an interval can't belong to another definition than its figure.

Token metrics are ratios of sums over rows (a token counts once, wherever it stands). Precision, recall and F1 follow scikit-learn with
`zero_division=0` and `labels=None`: a class that is neither true nor predicted anywhere is left out of the average, and a class that is
never predicted (never true) has precision (recall) 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from finetune_api.v1alpha1.evaluation import Metric
from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.evaluation.records import Floats, Ints, RowRecords

Statistic = Callable[[RowRecords, Floats], Floats]
"""(records of R rows, weights (B, R)) → (B,); NaN where nothing that the metric counts was drawn."""

LOWER_IS_BETTER: Final = frozenset({Metric.LOSS, Metric.PERPLEXITY})

TOKEN_METRICS: Final = frozenset({Metric.LOSS, Metric.PERPLEXITY, Metric.TOKEN_ACCURACY})
CLASS_METRICS: Final = frozenset(
    {
        Metric.ACCURACY,
        Metric.PRECISION_MACRO,
        Metric.PRECISION_WEIGHTED,
        Metric.RECALL_MACRO,
        Metric.RECALL_WEIGHTED,
        Metric.F1_MACRO,
        Metric.F1_WEIGHTED,
    }
)
OF_OBJECTIVE: Final[Mapping[Objective, frozenset[Metric]]] = {
    Objective.CAUSAL_LANGUAGE_MODELING: TOKEN_METRICS,
    Objective.MASKED_LANGUAGE_MODELING: TOKEN_METRICS,
    Objective.SUPERVISED: TOKEN_METRICS | {Metric.EXACT_MATCH},
    Objective.CLASSIFICATION: CLASS_METRICS | {Metric.LOSS},
}


def ones(records: RowRecords) -> Floats:
    """The weights (1, R) of the point estimate."""
    return np.ones((1, len(records)))


def bits_per_byte(records: RowRecords, weights: Floats) -> Floats:
    """NLL in bits a byte of text: comparable between tokenizers, where perplexity is not."""
    return _ratio(weights @ records.nll, weights @ records.bytes.astype(np.float64)) / math.log(2)


def _loss(records: RowRecords, weights: Floats) -> Floats:
    return _ratio(weights @ records.nll, weights @ records.tokens.astype(np.float64))


def _perplexity(records: RowRecords, weights: Floats) -> Floats:
    return np.asarray(np.exp(_loss(records, weights)), dtype=np.float64)


def _token_accuracy(records: RowRecords, weights: Floats) -> Floats:
    return _ratio(weights @ records.correct.astype(np.float64), weights @ records.tokens.astype(np.float64))


def _exact_match(records: RowRecords, weights: Floats) -> Floats:
    generated = (records.exact >= 0).astype(np.float64)
    return _ratio(weights @ (records.exact == 1).astype(np.float64), weights @ generated)


def _class_average(kind: str, *, weighted: bool) -> Statistic:
    def statistic(records: RowRecords, weights: Floats) -> Floats:
        classes = int(max(records.truth.max(), records.predicted.max())) + 1
        hits = _by_class(weights * (records.truth == records.predicted), records.truth, classes)
        true = _by_class(weights, records.truth, classes)
        predicted = _by_class(weights, records.predicted, classes)
        score = {
            "precision": lambda: _ratio(hits, predicted, empty=0.0),
            "recall": lambda: _ratio(hits, true, empty=0.0),
            "f1": lambda: _ratio(2 * hits, true + predicted, empty=0.0),
        }[kind]()
        share = true if weighted else (true + predicted > 0).astype(np.float64)
        return _ratio((score * share).sum(axis=1), share.sum(axis=1))

    return statistic


def _by_class(weights: Floats, classes: Ints, count: int) -> Floats:
    """(B, R) weights summed within each class: (B, count)."""
    order = np.argsort(classes, kind="stable")
    present, starts = np.unique(classes[order], return_index=True)
    sums = np.zeros((weights.shape[0], count))
    sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def _ratio(numerator: Floats, denominator: Floats, empty: float = np.nan) -> Floats:
    return np.divide(numerator, denominator, out=np.full_like(numerator, empty, dtype=np.float64), where=denominator > 0)


STATISTICS: Final[Mapping[Metric, Statistic]] = {
    Metric.LOSS: _loss,
    Metric.PERPLEXITY: _perplexity,
    Metric.TOKEN_ACCURACY: _token_accuracy,
    Metric.EXACT_MATCH: _exact_match,
    Metric.ACCURACY: _token_accuracy,
    Metric.PRECISION_MACRO: _class_average("precision", weighted=False),
    Metric.PRECISION_WEIGHTED: _class_average("precision", weighted=True),
    Metric.RECALL_MACRO: _class_average("recall", weighted=False),
    Metric.RECALL_WEIGHTED: _class_average("recall", weighted=True),
    Metric.F1_MACRO: _class_average("f1", weighted=False),
    Metric.F1_WEIGHTED: _class_average("f1", weighted=True),
}
