"""L2-SP: weights are pulled back to where they started from (Li, Grandvalet and Davoine 2018, arXiv 1802.01483).

The loss gets strength / 2 · ‖W − W⁰‖², over every weight that has an anchor, once an optimizer step. New heads are left out (the paper decays
them to zero: `training.weightDecay` does). The gradient is in closed form and joins the task's before clipping, so the penalty is part
of the loss for every optimizer alike; AdamW's own decay stays apart from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from finetune_api.v1alpha1.regularization import Anchor
from finetune_api.v1alpha1.regularization import Guard as Options
from finetune_trainer.engine.guards import Guard
from finetune_trainer.guards.change import Change, changes
from finetune_trainer.modeling.stage_model import StageModel

if TYPE_CHECKING:
    from finetune_trainer.engine.trainer import StageTrainer


class L2sp(Guard):
    """Nothing of it is in a checkpoint: the anchor is what the stage starts from, or the base, and both are there again at a resume."""

    name = "l2sp"

    def __init__(self, options: Options, model: StageModel, *, tokenizer: Any, seed: int, where: str) -> None:
        self._strength = options.strength or 0.0
        self._anchor = options.anchor or Anchor.BASE
        self._model = model
        self._tokenizer = tokenizer
        self._where = where
        self._changes: list[Change] = []

    def begin(self, trainer: StageTrainer) -> None:
        self._changes = changes(self._model, self._anchor, tokenizer=self._tokenizer, where=self._where)

    def pull(self, scale: float) -> torch.Tensor:
        with torch.no_grad():
            return torch.stack([change.pull_square(self._strength, scale) for change in self._changes]).sum()

    def summary(self) -> dict[str, Any]:
        return {"strength": self._strength, "anchor": self._anchor.value, "weights": len(self._changes)}
