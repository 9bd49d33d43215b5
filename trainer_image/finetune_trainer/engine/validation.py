"""Measuring a model on validation rows during training: sums are kept, logits never are.

Names are transformers' (`eval_loss`, …), because early stopping is set by them. Suites are measured elsewhere, with intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.engine.collate import Batch, Collator, Rows
from finetune_trainer.engine.losses import class_logits, token_losses

LARGEST_EXPONENT: Final = 700.0
"""A perplexity beyond it is no number."""


class Aborted(Exception):
    """A stop was asked for in the middle; what was measured is thrown away."""


def validate(
    model: nn.Module,
    rows: Rows,
    collator: Collator,
    *,
    batch_size: int,
    device: torch.device,
    should_stop: Callable[[], bool],
    on_rows: Callable[[int], None] = lambda rows: None,
) -> dict[str, float]:
    """Return eval_loss with eval_perplexity and eval_token_accuracy; for classification with eval_accuracy, and precision, recall and F1.

    Draws no random numbers, and leaves the model in evaluation mode. Raises Aborted.
    """
    model.eval()
    tally = _Classes() if collator.objective is Objective.CLASSIFICATION else _Tokens()
    longest_first = np.argsort(-np.asarray(rows.lengths, np.int64), kind="stable")  # the least padding, and the most memory at once
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            if should_stop():
                raise Aborted
            indexes = longest_first[start : start + batch_size].tolist()
            tally.add(model, collator(rows, indexes).to(device))
            on_rows(min(start + batch_size, len(rows)))
    return tally.metrics()


class _Tokens:
    def __init__(self) -> None:
        self._nll = 0.0
        self._correct = 0
        self._count = 0

    def add(self, model: nn.Module, batch: Batch) -> None:
        losses = token_losses(model, batch)
        self._nll += float(losses.nll.double().sum())
        self._correct += int(losses.correct.sum())
        self._count += batch.predictions

    def metrics(self) -> dict[str, float]:
        count = max(self._count, 1)
        loss = self._nll / count
        return {"eval_loss": loss, "eval_perplexity": math.exp(min(loss, LARGEST_EXPONENT)), "eval_token_accuracy": self._correct / count}


class _Classes:
    def __init__(self) -> None:
        self._nll = 0.0
        self._truth: list[npt.NDArray[np.int64]] = []
        self._predicted: list[npt.NDArray[np.int64]] = []

    def add(self, model: nn.Module, batch: Batch) -> None:
        logits = class_logits(model, batch).float()
        self._nll += float(functional.cross_entropy(logits, batch.targets, reduction="none").double().sum())
        self._truth.append(batch.targets.cpu().numpy())
        self._predicted.append(logits.argmax(-1).cpu().numpy())

    def metrics(self) -> dict[str, float]:
        truth, predicted = np.concatenate(self._truth), np.concatenate(self._predicted)
        return {
            "eval_loss": self._nll / len(truth),
            "eval_accuracy": float((truth == predicted).mean()),
            **averages(truth, predicted),
        }


def averages(truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> dict[str, float]:
    """Precision, recall and F1, over the classes that are true or predicted anywhere alike (macro) and by how often they are true
    (weighted), as scikit-learn has them with zero_division=0.
    """
    classes = np.union1d(truth, predicted)
    hits = np.array([((truth == name) & (predicted == name)).sum() for name in classes])
    true = np.array([(truth == name).sum() for name in classes])
    guessed = np.array([(predicted == name).sum() for name in classes])
    scores = {
        "precision": hits / np.maximum(guessed, 1),
        "recall": hits / np.maximum(true, 1),
        "f1": 2 * hits / (true + guessed),
    }
    macro = {f"eval_{name}_macro": float(score.mean()) for name, score in scores.items()}
    return macro | {f"eval_{name}_weighted": float((score * true).sum() / true.sum()) for name, score in scores.items()}
