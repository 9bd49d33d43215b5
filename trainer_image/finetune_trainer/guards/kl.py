"""KL to the base: the model may not say anything very different from what the anchor says (learning without forgetting: Li and Hoiem 2016,
arXiv 1606.09282, whose cross-entropy with the old outputs differs from this divergence by a constant).

The loss gets strength · KL(anchor ‖ model), averaged over the step's predictions: the same positions as the loss, without dropout and noise
on the anchor's side. Where turning the adapter off is seen to give the anchor, its logits cost one more forward pass and no memory;
elsewhere a second copy of the model is held.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from torch.nn import functional

from finetune_api.v1alpha1.regularization import Anchor
from finetune_api.v1alpha1.regularization import Guard as Options
from finetune_trainer.engine.collate import Batch
from finetune_trainer.engine.guards import Guard
from finetune_trainer.engine.losses import token_logits
from finetune_trainer.guards.change import base_model
from finetune_trainer.methods.peft_models import TRAINED
from finetune_trainer.modeling.stage_model import StageModel

if TYPE_CHECKING:
    from finetune_trainer.engine.trainer import StageTrainer

PROBE = 8
"""Tokens of the row by which it is seen whether the model with its adapter off is the anchor."""


class Kl(Guard):
    """Nothing of it is in a checkpoint: the anchor is there again at a resume."""

    name = "kl"

    def __init__(self, options: Options, model: StageModel, *, tokenizer: Any, seed: int, where: str) -> None:
        self._strength = options.strength or 0.0
        self._anchor = options.anchor or Anchor.BASE
        self._model = model
        self._tokenizer = tokenizer
        self._copy: nn.Module | None = None

    def begin(self, trainer: StageTrainer) -> None:
        self._autocast = trainer.accelerator.autocast
        if self._off_is_the_anchor(trainer.model):
            self.note("the anchor's logits come from the model with its adapter off: a forward pass more, no second copy")
            return
        self._copy = self._second_copy(trainer.model).requires_grad_(False).eval()
        size = sum(parameter.numel() * parameter.element_size() for parameter in self._copy.parameters())
        self.note(f"the anchor's logits come from a second copy of the model: a forward pass more, and {size / 1e6:,.0f} MB")

    def term(self, model: nn.Module, batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        anchored = functional.log_softmax(self._anchored(model, batch).float(), dim=-1)
        now = functional.log_softmax(logits.float(), dim=-1)
        return functional.kl_div(now, anchored, reduction="sum", log_target=True) * self._strength

    def summary(self) -> dict[str, Any]:
        reference = "the model with its adapter off" if self._copy is None else "a second copy"
        return {"strength": self._strength, "anchor": self._anchor.value, "anchorLogits": reference}

    def _anchored(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            if self._copy is not None:
                with self._autocast():
                    return token_logits(self._copy, batch)
            model.eval()
            try:
                with adapter_off(model, whole=self._anchor is Anchor.BASE):
                    return token_logits(model, batch)
            finally:
                model.train()

    def _off_is_the_anchor(self, model: nn.Module) -> bool:
        start = self._model.start
        below = self._anchor is Anchor.BASE and _changed_below(self._model)
        if self._model.added or below or start.trained is not None or not _layers(model):
            return False
        device = next(model.parameters()).device
        ids = torch.arange(PROBE, device=device)[None] + 1
        was = model.training
        model.eval()
        with torch.no_grad():
            on = model(input_ids=ids).logits
            with adapter_off(model, whole=False):
                off = model(input_ids=ids).logits
        model.train(was)
        return bool(torch.equal(on, off))

    def _second_copy(self, model: nn.Module) -> nn.Module:
        parameter = next(model.parameters())
        if self._anchor is Anchor.BASE and (_changed_below(self._model) or self._model.start.trained is not None):
            base: nn.Module = base_model(self._model, self._tokenizer).model
            return base.to(device=parameter.device, dtype=self._model.precision.frozen)
        copied = copy.deepcopy(model)
        copied.__dict__.pop("forward", None)  # accelerate's autocast, which would call the original's
        return copied


@contextmanager
def adapter_off(model: nn.Module, *, whole: bool) -> Iterator[None]:
    """Leave out the adapter that is trained; `whole`: frozen ones under it too.

    By the fields that PEFT's forward reads: its own context managers also change what requires gradients.
    """
    layers = _layers(model)
    before = [(layer, layer._disable_adapters, layer._active_adapter) for layer in layers]
    for layer in layers:
        others = [name for name in layer.active_adapters if name != TRAINED]
        if whole or not others:
            layer._disable_adapters = True
        else:
            layer._active_adapter = others
    try:
        yield
    finally:
        for layer, disabled, active in before:
            layer._disable_adapters, layer._active_adapter = disabled, active


def _changed_below(model: StageModel) -> bool:
    """Whether earlier stages have changed what lies under the adapter."""
    return bool(model.start.weights or model.start.adapters or model.head in model.start.heads)


def _layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper)]
