"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.modeling.base import Plain
from finetune_trainer.modeling.start import Start


def apply(plain: Plain, stage: Stage, *, start: Start, added: Sequence[int], seed: int, where: str) -> nn.Module:
    """Train everything; rows of added tokens are part of it."""
    module: nn.Module = plain.model
    module.requires_grad_(True)
    return module
