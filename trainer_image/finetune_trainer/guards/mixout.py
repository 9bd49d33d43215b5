"""Mixout: each weight is at random replaced by its anchor's (Lee, Cho and Kang 2020, arXiv 1909.11299).

A batch goes through W̃ = (M∘W⁰ + (1 − M)∘W − p·W⁰) / (1 − p), M drawn anew for each with probability p, so that W̃ is W on average; its
gradient reaches W where M is 0, over 1 − p. As in the paper's code the weights of linear layers are mixed, not biases, norms and
embeddings. Masks come from the generators that a checkpoint has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from finetune_api.constants import Reason
from finetune_api.v1alpha1.regularization import Anchor
from finetune_api.v1alpha1.regularization import Guard as Options
from finetune_trainer.engine.collate import Batch
from finetune_trainer.engine.guards import Guard
from finetune_trainer.errors import TrainerError
from finetune_trainer.guards.change import Weight, changes
from finetune_trainer.modeling.stage_model import StageModel

if TYPE_CHECKING:
    from finetune_trainer.engine.trainer import StageTrainer


NO_LINEAR: Final = "this stage trains no linear layer that has an anchor; leave the guard out"


class Mixout(Guard):
    """Nothing of it is in a checkpoint but the generators' states, which always are."""

    name = "mixout"

    def __init__(self, options: Options, model: StageModel, *, tokenizer: Any, seed: int, where: str) -> None:
        self._probability = options.probability or 0.0
        self._anchor = options.anchor or Anchor.BASE
        self._model = model
        self._tokenizer = tokenizer
        self._where = where
        self._weights: list[Weight] = []

    def begin(self, trainer: StageTrainer) -> None:
        linear = {f"{name}.weight" for name, module in self._model.module.named_modules() if isinstance(module, nn.Linear | Conv1D)}
        held = changes(self._model, self._anchor, tokenizer=self._tokenizer, where=self._where)
        self._weights = [change for change in held if isinstance(change, Weight) and change.name in linear]
        if not self._weights:
            raise TrainerError(Reason.INVALID_SPEC, NO_LINEAR, where=self._where)

    @contextmanager
    def around(self, model: nn.Module, batch: Batch) -> Iterator[None]:
        trained = [weight for weight in self._weights if weight.parameter.requires_grad]  # others are frozen for now by a schedule
        own = [weight.parameter.data for weight in trained]
        hooks = []
        for weight in trained:
            mask = torch.rand_like(weight.anchor) < self._probability
            weight.parameter.data = mixed(weight.parameter.data, weight.anchor, mask, self._probability)
            hooks.append(weight.parameter.register_hook(_through(mask, self._probability)))
        try:
            yield
        finally:
            for weight, data, hook in zip(trained, own, hooks, strict=True):
                weight.parameter.data = data
                hook.remove()

    def summary(self) -> dict[str, Any]:
        return {"probability": self._probability, "anchor": self._anchor.value, "weights": len(self._weights)}


def mixed(weight: torch.Tensor, anchor: torch.Tensor, mask: torch.Tensor, probability: float) -> torch.Tensor:
    """The weight with the anchor where `mask` is, corrected so that its mean over masks is the weight."""
    return (torch.where(mask, anchor, weight) - probability * anchor) / (1 - probability)


def _through(mask: torch.Tensor, probability: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda gradient: gradient.masked_fill(mask, 0.0) / (1 - probability)
