"""Training a part of a plain model: the chosen parameters, and the rows of added tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from finetune_trainer.methods.tokens import train_rows
from finetune_trainer.modeling.base import Plain


def train_only(plain: Plain, names: Collection[str], added: Sequence[int]) -> nn.Module:
    """Freeze all but `names`, and but the rows of added tokens where the embeddings are not among them."""
    model: nn.Module = plain.model
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    if added and not plain.model.get_input_embeddings().weight.requires_grad:
        train_rows(plain.model, added)
    return model
