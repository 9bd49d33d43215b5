"""NEFTune: noise on the embeddings while training (Jain et al. 2023, arXiv 2310.05914).

Each entry of a row's embeddings gets a number from U(−1, 1) times alpha / √(L·d): L the row's tokens, d the width. Padding gets none.
The noise comes from the generators that a checkpoint has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from finetune_trainer.engine.collate import Batch
from finetune_trainer.engine.guards import Guard
from finetune_trainer.engine.losses import unwrapped


class Neftune(Guard):
    name = "neftune"

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    @contextmanager
    def around(self, model: nn.Module, batch: Batch) -> Iterator[None]:
        def disturb(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            return output + noise(output, batch.lengths, self._alpha) if module.training else output

        handle = unwrapped(model).get_input_embeddings().register_forward_hook(disturb)
        try:
            yield
        finally:
            handle.remove()

    def summary(self) -> dict[str, Any]:
        return {"alpha": self._alpha}


def noise(embedded: torch.Tensor, lengths: torch.Tensor, alpha: float) -> torch.Tensor:
    """Noise for (B, N, d) embeddings of rows with so many tokens (B,), padded on the right."""
    _, width, size = embedded.shape
    drawn = torch.empty_like(embedded).uniform_(-1, 1)
    tokens = torch.arange(width, device=embedded.device) < lengths[:, None]
    scale = alpha / (lengths * size).sqrt()
    return drawn * (tokens * scale[:, None])[..., None].to(embedded.dtype)
