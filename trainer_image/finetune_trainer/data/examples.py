"""Some rows of a stage's training data, drawn by a seed: what a method looks at before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from finetune_api.constants import Reason
from finetune_api.v1alpha1.data import TrainSource
from finetune_trainer.data.rows import RowSet
from finetune_trainer.errors import TrainerError


@dataclass(frozen=True)
class StageExamples:
    """The rows of a stage; `sources` are those of its manifest, in their order."""

    rows: RowSet
    sources: Sequence[TrainSource]
    seed: int
    device: torch.device

    def drawn(self, count: int, *, replayed: bool, where: str) -> list[torch.Tensor]:
        """Token ids, int64 [length], of `count` rows or of all there are. Raises TrainerError(DataEmpty) where there are none."""
        wanted = [number for number, source in enumerate(self.sources) if bool(source.replay) is replayed]
        known = np.flatnonzero(np.isin(np.asarray(self.rows.sources), wanted))
        if not len(known):
            kind = "replay sources have" if replayed else "training data have"
            raise TrainerError(Reason.DATA_EMPTY, f"the stage's {kind} no row that an adapter could begin from", where=where)
        chosen = np.random.Generator(np.random.Philox(key=[self.seed, len(known)])).permutation(known)[:count]
        return [torch.from_numpy(self.rows.tokens(int(row)).astype(np.int64)) for row in np.sort(chosen)]
