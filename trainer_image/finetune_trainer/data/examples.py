"""The training rows of a stage as tensors, for a method that begins from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from finetune_api.v1alpha1.data import TrainSource
from finetune_trainer.data.draws import drawn_rows
from finetune_trainer.data.rows import RowSet


@dataclass(frozen=True)
class StageExamples:
    """The rows of a stage; `sources` are those of its manifest, in their order."""

    rows: RowSet
    sources: Sequence[TrainSource]
    seed: int
    device: torch.device

    def drawn(self, count: int, *, replayed: bool, where: str) -> list[torch.Tensor]:
        """Token ids, int64 [length], of `count` rows or of all there are. Raises TrainerError(DataEmpty) where there are none."""
        chosen = drawn_rows(self.rows, self.sources, count, self.seed, replayed=replayed, where=where)
        return [torch.from_numpy(self.rows.tokens(int(row)).astype(np.int64)) for row in chosen]
