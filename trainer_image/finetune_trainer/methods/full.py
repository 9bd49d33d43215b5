"""Full fine-tuning: every weight is trained, deeper layers slower where the manifest says so."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.methods.base import Method, Setting
from finetune_trainer.methods.layering import depths


def apply(setting: Setting) -> nn.Module:
    """Train everything; rows of added tokens are part of it."""
    module: nn.Module = setting.plain.model
    module.requires_grad_(True)
    return module


def rates(module: nn.Module, stage: Stage) -> Mapping[str, float]:
    """Discriminative learning rates (Howard and Ruder 2018): the head's is the declared one, each layer's a share of that above it."""
    decay = stage.method.full.layer_decay if stage.method.full is not None else None
    if decay is None:
        return {}
    found = depths(module)
    top = max(found.values())
    return {name: decay ** (top - depth) for name, depth in found.items()}


METHOD = Method(apply, rates=rates)
