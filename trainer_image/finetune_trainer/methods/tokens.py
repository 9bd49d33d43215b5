"""Rows of added tokens, trained whatever the method freezes.

PEFT has trainable tokens too, but they drop the bias of a projection that is tied to the embeddings (BERT's), and know adapters only. A
parametrization of torch does it for every method: the weight that the module sees is the frozen one with these rows put in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize


class TokenRows(nn.Module):
    """Replaces rows of a (vocabulary, hidden) weight by trained ones."""

    ids: torch.Tensor

    def __init__(self, ids: Sequence[int], weight: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("ids", torch.tensor(list(ids), dtype=torch.int64), persistent=False)
        self.rows = nn.Parameter(weight.detach()[list(ids)].float().clone())

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.index_copy(0, self.ids, self.rows.to(weight.dtype))


def train_rows(model: Any, ids: Sequence[int]) -> None:
    """Train these rows of the embeddings and of the vocabulary's projection; where the two are tied, they stay so."""
    inputs = model.get_input_embeddings()
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    tied = output is not None and output.weight is inputs.weight
    rows = TokenRows(ids, inputs.weight)
    parametrize.register_parametrization(inputs, "weight", rows)
    if output is not None:
        parametrize.register_parametrization(output, "weight", rows if tied else TokenRows(ids, output.weight))
