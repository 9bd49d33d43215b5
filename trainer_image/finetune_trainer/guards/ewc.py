"""EWC: a weight is held to the anchor the more, the more it matters for what was known there (Kirkpatrick et al. 2017, arXiv 1612.00796).

The loss gets strength / 2 · Σ F (W − W⁰)², F the diagonal of the Fisher information at the anchor: squared gradients of the log-likelihood
of each row by itself, of labels that the model draws, on the stage's replay data, a prediction's mean. Gradients of a batch, or those of the
data's own labels, would be another quantity. Under an adapter F and the difference are those of the effective weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn import functional

from finetune_api.v1alpha1.regularization import Anchor
from finetune_api.v1alpha1.regularization import Guard as Options
from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.checkpoint.state import digest
from finetune_trainer.data.draws import drawn_rows
from finetune_trainer.engine.collate import Batch
from finetune_trainer.engine.guards import Guard
from finetune_trainer.engine.losses import class_logits, token_logits
from finetune_trainer.guards.change import Change, Weight, base_model, changed_before, changes
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.pulse import beat

if TYPE_CHECKING:
    from finetune_trainer.engine.trainer import StageTrainer

DEFAULT_SAMPLES: Final = 256


class Ewc(Guard):
    """The Fisher information is made once, where the stage begins, and is in every checkpoint of it."""

    name = "ewc"

    def __init__(self, options: Options, model: StageModel, *, tokenizer: Any, seed: int, where: str) -> None:
        self._strength = options.strength or 0.0
        self._anchor = options.anchor or Anchor.BASE
        self._samples = options.samples or DEFAULT_SAMPLES
        self._model = model
        self._tokenizer = tokenizer
        self._seed = seed
        self._where = where
        self._changes: list[Change] = []
        self._fisher: dict[str, torch.Tensor] = {}
        self._rows = 0
        self._sha256 = ""

    def begin(self, trainer: StageTrainer) -> None:
        self._changes = changes(self._model, self._anchor, tokenizer=self._tokenizer, where=self._where)
        self._fisher = {}

    def start(self, trainer: StageTrainer) -> None:
        if self._fisher:  # from a checkpoint
            return
        known: Any = trainer.rows  # those of a stage tell which source each is of
        rows = drawn_rows(known, self._model.stage.data.train, self._samples, self._seed, replayed=True, where=self._where)
        module, weights = self._at_the_anchor(trainer)
        generator = torch.Generator(trainer.args.device).manual_seed(self._seed)
        batches = (trainer.collator(known, [int(row)]).to(trainer.args.device) for row in rows)
        self._rows = len(rows)
        with trainer.accelerator.autocast():
            found = fisher(module, batches, weights, trainer.collator.objective, generator)
        turned = {change.name for change in self._changes if not isinstance(change, Weight) and change.layer.fan_in_fan_out}  # type: ignore[attr-defined]
        self._fisher = {name: values.T.contiguous() if name in turned else values for name, values in found.items()}
        self._sha256 = digest(self._fisher)
        self.note(f"the Fisher information of {len(found)} weights is that of {len(rows)} rows of replay data")

    def pull(self, scale: float) -> torch.Tensor:
        penalties = []
        with torch.no_grad():
            for change in self._changes:
                difference = change.difference()
                pulled = self._fisher[change.name] * difference
                penalties.append((pulled * difference).sum() * (self._strength / 2))
                change.pull(pulled.mul_(self._strength * scale))
        return torch.stack(penalties).sum()

    def document(self) -> dict[str, Any]:
        return {"rows": self._rows, "sha256": self._sha256}

    def tensors(self) -> dict[str, torch.Tensor]:
        return self._fisher

    def load(self, document: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        device = next(self._model.module.parameters()).device
        self._fisher = {name: tensor.to(device) for name, tensor in tensors.items()}
        self._rows, self._sha256 = document["rows"], document["sha256"]

    def summary(self) -> dict[str, Any]:
        return {"strength": self._strength, "anchor": self._anchor.value, "rows": self._rows, "fisherSha256": self._sha256}

    def _at_the_anchor(self, trainer: StageTrainer) -> tuple[nn.Module, dict[str, nn.Parameter]]:
        """A model that is at the anchor, and its weights by the names of the changes."""
        names = [change.name for change in self._changes]
        if self._anchor is Anchor.BASE and changed_before(self._model.start):
            base = base_model(self._model, self._tokenizer).model.to(trainer.args.device)
            parameters = dict(base.named_parameters())
            return base, {name: parameters[name] for name in names}
        found = {}
        for change in self._changes:
            found[change.name] = change.parameter if isinstance(change, Weight) else change.layer.get_base_layer().weight  # type: ignore[attr-defined]
        return trainer.model, found


def fisher(
    model: nn.Module, batches: Iterable[Batch], weights: Mapping[str, nn.Parameter], objective: Objective, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The diagonal of the Fisher information: of each batch (one row) the squared gradient of the log-likelihood of labels that the model
    draws, summed, over the number of predictions. float32, in the weights' shapes. The model is left as it was, without gradients.
    """
    training, needed = model.training, {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    total = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    predictions = 0
    model.eval()
    model.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    try:
        for batch in batches:
            logits = class_logits(model, batch) if objective is Objective.CLASSIFICATION else token_logits(model, batch)
            with torch.no_grad():
                drawn = torch.multinomial(logits.float().softmax(-1), 1, generator=generator).flatten()
            likelihood = -functional.cross_entropy(logits.float(), drawn, reduction="sum")
            gradients: Sequence[torch.Tensor | None] = torch.autograd.grad(likelihood, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient.float().square()
            predictions += batch.predictions
            beat()
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(needed[name])
        model.train(training)
    return {name: values / max(predictions, 1) for name, values in total.items()}
