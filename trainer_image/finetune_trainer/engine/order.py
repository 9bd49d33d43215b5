"""Which rows each optimizer step takes: a function of the seed and the step, so that resuming skips by number and reads nothing.

Every epoch has its own order, drawn from (seed, epoch) by a counter-based generator. Rank r of w takes every w-th batch; with w = 1 that is
all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.training import Training
from finetune_trainer.data.order import group_by_length, pack
from finetune_trainer.data.prepared import PreparedStage
from finetune_trainer.engine.schedule import total_steps

Pack = Sequence[int]
"""Row indexes that share one line of a batch; one row where nothing is packed."""


@dataclass(frozen=True)
class StepBatches:
    """What one optimizer step consumes on this rank."""

    epoch: int
    batches: list[list[Pack]]
    """Micro-batches, in their order."""


def stage_order(stage: Stage, prepared: PreparedStage, seed: int) -> DataOrder:
    """The order of a stage's rows, by its training options."""
    training = stage.training
    return DataOrder(
        lengths=prepared.train.lengths,
        selection=prepared.selection,
        batch_size=training.batch_rows,
        accumulation=training.accumulation,
        seed=seed,
        packed_length=prepared.max_length if training.packing else None,
        grouped=training.group_by_length,
    )


@dataclass(frozen=True)
class DataOrder:
    """The order of a stage's rows."""

    lengths: npt.NDArray[np.int32]
    """Tokens of every row."""
    selection: npt.NDArray[np.int64]
    """Rows of one epoch, after mixing."""
    batch_size: int
    accumulation: int
    seed: int
    packed_length: int | None = None
    """Rows are packed up to this many tokens; None: not packed."""
    grouped: bool = False
    """Rows of similar length share a batch."""
    rank: int = 0
    world: int = 1
    _memo: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def packs(self) -> list[npt.NDArray[np.int64]] | None:
        """What shares a line, or None where nothing is packed. The same in every epoch: only the order of the packs changes."""
        if self.packed_length is None:
            return None
        chosen = self.lengths[self.selection]
        return [self.selection[np.asarray(members, dtype=np.int64)] for members in pack(chosen, self.packed_length)]

    @property
    def lines(self) -> int:
        """Lines (rows or packs) of an epoch, over all ranks."""
        return len(self.selection) if self.packs is None else len(self.packs)

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of an epoch on each rank."""
        return math.ceil(math.ceil(self.lines / self.batch_size) / self.world)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last may have fewer micro-batches."""
        return math.ceil(self.batches_per_epoch / self.accumulation)

    def total_steps(self, *, epochs: float | None, max_steps: int | None) -> int:
        """Optimizer steps of the stage: max_steps, or those of so many epochs (rounded up)."""
        return total_steps(epochs=epochs, max_steps=max_steps, steps_per_epoch=self.steps_per_epoch)

    def length(self, training: Training) -> tuple[int, int]:
        """Optimizer steps of the stage, and of an epoch."""
        return self.total_steps(epochs=training.num_train_epochs, max_steps=training.max_steps), self.steps_per_epoch

    def step(self, number: int) -> StepBatches:
        """Return what optimizer step `number` (from 0) consumes."""
        epoch, within = divmod(number, self.steps_per_epoch)
        order = self._order(epoch)
        first = within * self.accumulation
        batches = [self._batch(order, index) for index in range(first, min(first + self.accumulation, self.batches_per_epoch))]
        return StepBatches(epoch, batches)

    def _batch(self, order: npt.NDArray[np.int64], index: int) -> list[Pack]:
        total = math.ceil(self.lines / self.batch_size)
        start = (index * self.world + self.rank) % total * self.batch_size
        chosen = order[start : start + self.batch_size]
        if self.packs is None:
            return [[int(row)] for row in self.selection[chosen]]
        return [self.packs[line].tolist() for line in chosen]

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._memo:
            self._memo.clear()
            self._memo[epoch] = self._draw(epoch)
        return self._memo[epoch]

    def _draw(self, epoch: int) -> npt.NDArray[np.int64]:
        if self.grouped and self.packs is None:
            seed = int(np.random.Philox(key=[self.seed, epoch]).random_raw() >> 32)
            return np.asarray(group_by_length(self.lengths[self.selection], self.batch_size, seed), dtype=np.int64).reshape(-1)
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(self.lines)
