"""Rows become batches: padding, packing, masking, and which positions are predicted.

A batch says outright which hidden states predict which tokens (`where` and `targets`), so that neither training nor evaluation has to shift
labels, search for them on the device, or compute logits where nothing is predicted. Everything here is numpy until the last line, and every
batch depends only on (rows, indexes, epoch), never on what was read before: that is what makes resuming exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from finetune_api.v1alpha1.stage import Objective

Ints = npt.NDArray[np.int64]
MASKED_SHARE = 0.8
RANDOM_SHARE = 0.1


class Rows(Protocol):
    """What a batch needs to know of a RowSet."""

    @property
    def lengths(self) -> npt.NDArray[np.int32]: ...

    def __len__(self) -> int: ...

    def tokens(self, index: int) -> npt.NDArray[np.int32]: ...

    def supervised(self, index: int) -> npt.NDArray[np.bool_]: ...

    def label(self, index: int) -> int: ...

    def id(self, index: int) -> str: ...


class Packing(StrEnum):
    """How the documents of a packed row are kept apart; packing_probe finds which of them is exact for a model."""

    POSITIONS = "positionIds"
    MASK = "mask"


@dataclass(frozen=True)
class Masking:
    """BERT's masking (Devlin et al. 2018, arXiv 1810.04805): of the chosen tokens 80 % become the mask, 10 % a random token, 10 % stay."""

    mask_id: int
    vocabulary: int
    """Number of tokens to draw random ones from."""
    special_ids: frozenset[int]
    """Never chosen."""
    probability: float
    seed: int


@dataclass(frozen=True)
class Batch:
    """Rows on their way through the model; T is the number of predictions in it.

    `targets` holds tokens, or class indexes for classification, where `where` is empty.
    """

    inputs: dict[str, torch.Tensor]
    """What the model's forward takes: input_ids (B, N) and, where needed, attention_mask and position_ids."""
    where: torch.Tensor
    """(T,) int64: flat positions, in B × N, of the hidden states that predict."""
    targets: torch.Tensor
    """(T,) int64: what they have to predict."""
    lengths: torch.Tensor
    """(B,) int64: tokens of each line, without padding."""
    rows: torch.Tensor
    """(T,) int64: which of `ids` each prediction belongs to."""
    ids: list[str] = field(default_factory=list)
    """Content hashes of the rows, in their order."""
    tokens: int = 0
    """Tokens that are not padding."""
    groups: torch.Tensor | None = None
    """(B, roles) int64: domain and confounder of each row, where a guard asks for them."""

    @property
    def predictions(self) -> int:
        """Number of supervised tokens (rows for classification): what the loss is divided by."""
        return int(self.targets.shape[0])

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        parts = (self.where, self.targets, self.lengths, self.rows)
        where, targets, lengths, rows = (tensor.to(device, non_blocking=True) for tensor in parts)
        groups = None if self.groups is None else self.groups.to(device, non_blocking=True)
        return Batch(inputs, where, targets, lengths, rows, self.ids, self.tokens, groups)


@dataclass(frozen=True)
class Collator:
    """Makes the batches of one objective. `needs_mask=False` leaves the padding mask out, for models that were seen not to need it."""

    objective: Objective
    pad_id: int
    masking: Masking | None = None
    packing: Packing | None = None
    needs_mask: bool = True
    groups: Callable[[int], Sequence[int]] | None = None
    """Domain and confounder of each row, for batches that tell them."""

    def __call__(self, rows: Rows, indexes: Sequence[int], *, epoch: int = 0) -> Batch:
        """Return the batch of these rows, padded on the right to the longest."""
        batch = self._batch(rows, indexes, epoch)
        return batch if self.groups is None else replace(batch, groups=torch.tensor([self.groups(index) for index in indexes]))

    def _batch(self, rows: Rows, indexes: Sequence[int], epoch: int) -> Batch:
        if self.objective is Objective.CLASSIFICATION:
            return self._classification(rows, indexes)
        if self.objective is Objective.MASKED_LANGUAGE_MODELING:
            return self._masked(rows, indexes, epoch)
        return self._causal(rows, [[index] for index in indexes])

    def packed(self, rows: Rows, packs: Sequence[Sequence[int]]) -> Batch:
        """Return a batch with a row for each pack; no document sees another, and the first token of none is predicted."""
        return self._causal(rows, packs)

    def _causal(self, rows: Rows, packs: Sequence[Sequence[int]]) -> Batch:
        lengths = [sum(int(rows.lengths[index]) for index in pack) for pack in packs]
        width = max(lengths)
        input_ids = np.full((len(packs), width), self.pad_id, dtype=np.int64)
        positions = np.zeros_like(input_ids)
        segments = np.zeros_like(input_ids)
        where: list[Ints] = []
        targets: list[Ints] = []
        owners: list[Ints] = []
        ids: list[str] = []
        for line, pack in enumerate(packs):
            start = 0
            for number, index in enumerate(pack, start=1):
                tokens = rows.tokens(index)
                stop = start + len(tokens)
                input_ids[line, start:stop] = tokens
                positions[line, start:stop] = np.arange(len(tokens))
                segments[line, start:stop] = number
                predicted = np.flatnonzero(rows.supervised(index)[1:])
                where.append(predicted + (line * width + start))
                targets.append(tokens[1:][predicted].astype(np.int64))
                owners.append(np.full(len(predicted), len(ids), dtype=np.int64))
                ids.append(rows.id(index))
                start = stop
            positions[line, start:] = np.arange(width - start)
        inputs = {"input_ids": torch.from_numpy(input_ids)} | self._apart(positions, segments, packed=len(ids) > len(packs))
        return Batch(inputs, _joined(where), _joined(targets), torch.tensor(lengths), _joined(owners), ids, sum(lengths))

    def _apart(self, positions: Ints, segments: Ints, *, packed: bool) -> dict[str, torch.Tensor]:
        """What keeps documents apart, and from the padding: nothing, a padding mask, positions that start anew, or a block mask."""
        if not packed:
            padded = self.needs_mask and not segments.all()
            return {"attention_mask": torch.from_numpy((segments > 0).astype(np.int64))} if padded else {}
        if self.packing is Packing.POSITIONS:
            return {"position_ids": torch.from_numpy(positions)}
        same = segments[:, :, None] == segments[:, None, :]
        causal = np.tri(segments.shape[1], dtype=bool)
        return {"position_ids": torch.from_numpy(positions), "attention_mask": torch.from_numpy(same & causal)[:, None]}

    def _padded(self, rows: Rows, indexes: Sequence[int]) -> tuple[Ints, Ints]:
        width = max(int(rows.lengths[index]) for index in indexes)
        input_ids = np.full((len(indexes), width), self.pad_id, dtype=np.int64)
        mask = np.zeros_like(input_ids)
        for line, index in enumerate(indexes):
            tokens = rows.tokens(index)
            input_ids[line, : len(tokens)] = tokens
            mask[line, : len(tokens)] = 1
        return input_ids, mask

    def _masked(self, rows: Rows, indexes: Sequence[int], epoch: int) -> Batch:
        assert self.masking is not None, "masked language modelling is built with its masking"
        input_ids, mask = self._padded(rows, indexes)
        where: list[Ints] = []
        targets: list[Ints] = []
        owners: list[Ints] = []
        for line, index in enumerate(indexes):
            tokens = input_ids[line, : int(rows.lengths[index])]
            chosen, replaced = mask_row(tokens, rows.supervised(index), self.masking, epoch=epoch, index=index)
            where.append(chosen + line * input_ids.shape[1])
            targets.append(tokens[chosen])
            owners.append(np.full(len(chosen), line, dtype=np.int64))
            tokens[chosen] = replaced
        inputs = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask)}
        ids, lengths = [rows.id(index) for index in indexes], torch.from_numpy(mask.sum(axis=1))
        return Batch(inputs, _joined(where), _joined(targets), lengths, _joined(owners), ids, int(mask.sum()))

    def _classification(self, rows: Rows, indexes: Sequence[int]) -> Batch:
        input_ids, mask = self._padded(rows, indexes)
        labels = np.array([rows.label(index) for index in indexes], dtype=np.int64)
        inputs = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask)}
        lines, lengths = torch.arange(len(indexes)), torch.from_numpy(mask.sum(axis=1))
        return Batch(inputs, _joined([]), torch.from_numpy(labels), lengths, lines, [rows.id(index) for index in indexes], int(mask.sum()))


def mask_row(tokens: Ints, supervised: npt.NDArray[np.bool_], masking: Masking, *, epoch: int, index: int) -> tuple[Ints, Ints]:
    """Return the chosen positions of a row and what stands there instead. At least one is chosen wherever one may be.

    A function of (seed, epoch, index) alone: the same after a resume, and for a suite the same at every evaluation.
    """
    generator = np.random.Generator(np.random.Philox(key=[masking.seed, (epoch << 40) ^ index]))
    eligible = np.flatnonzero(supervised & ~np.isin(tokens, list(masking.special_ids)))
    if not len(eligible):
        return eligible, tokens[eligible]
    draws = generator.random(len(eligible))
    chosen = eligible[draws < masking.probability] if (draws < masking.probability).any() else eligible[[int(draws.argmin())]]
    fate = generator.random(len(chosen))
    randoms = generator.integers(0, masking.vocabulary, len(chosen))
    replaced = np.where(fate < MASKED_SHARE, masking.mask_id, np.where(fate < MASKED_SHARE + RANDOM_SHARE, randoms, tokens[chosen]))
    return chosen, replaced.astype(np.int64)


def _joined(parts: Sequence[Ints]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts)) if parts else torch.zeros(0, dtype=torch.int64)
