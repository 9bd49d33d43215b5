"""Some rows of a stage's training data, drawn by its seed: what a method looks at before the first step. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune_api.constants import Reason
from finetune_api.v1alpha1.data import TrainSource
from finetune_api.v1alpha1.methods.lora import CordaMode, LoraInitialization
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.data.rows import RowSet
from finetune_trainer.errors import TrainerError


def stage_seed(seed: int, index: int) -> int:
    """A seed of its own for each stage, so that two equal stages don't draw the same numbers."""
    return (seed + 1_000_003 * index) % 2**32


def drawn_rows(rows: RowSet, sources: Sequence[TrainSource], count: int, seed: int, *, replayed: bool, where: str) -> npt.NDArray[np.int64]:
    """`count` rows of the stage's own sources, or of those that it replays, or all that there are; ascending. Raises TrainerError(DataEmpty)."""
    wanted = [number for number, source in enumerate(sources) if bool(source.replay) is replayed]
    known = np.flatnonzero(np.isin(np.asarray(rows.sources), wanted))
    if not len(known):
        kind = "replay sources have" if replayed else "training data have"
        raise TrainerError(Reason.DATA_EMPTY, f"the stage's {kind} no row to look at before the first step: add rows there", where=where)
    return np.sort(np.random.Generator(np.random.Philox(key=[seed, len(known)])).permutation(known)[:count])


def check_start(stage: Stage, rows: RowSet, seed: int, where: str) -> None:
    """Raise TrainerError(DataEmpty) where the stage's adapter begins from its rows and they show too little. `where`: `spec.stages[0]`."""
    options = stage.method.lora
    if options is None or not options.begins_from_data:
        return
    field = f"{where}.method.lora.initialization"
    replayed = options.mode is CordaMode.KNOWLEDGE_PRESERVED
    chosen = drawn_rows(rows, stage.data.train, options.rows_to_begin, seed, replayed=replayed, where=field)
    tokens = int(rows.lengths[chosen].sum())
    if options.initialization is LoraInitialization.EVA and tokens < options.directions:
        every = len(chosen) < options.rows_to_begin
        raise TrainerError(
            Reason.DATA_EMPTY,
            f"{tokens} tokens in {len(chosen)} row{'s' * (len(chosen) != 1)} cannot show {options.directions} directions: "
            f"{'add rows to data.train' if every else 'write more initializationRows'}, or a lower r or rho",
            where=field,
            hint="This start looks at rows of the stage's training data, and needs a token for each direction; initialization: default needs none.",
        )
