"""What a batch says: which positions predict which tokens, where padding and documents end, which tokens are masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.engine.collate import Collator, Masking, Packing, mask_row
from tests.unit.engine.tiny_models import VOCABULARY, FakeRows

ROWS = FakeRows([6, 3, 4], supervised_from=0.5)
CAUSAL = Collator(Objective.SUPERVISED, pad_id=0)
MASKING = Masking(mask_id=4, vocabulary=VOCABULARY, special_ids=frozenset(range(5)), probability=0.15, seed=7)


def test_a_position_predicts_the_token_after_it_and_padding_predicts_nothing() -> None:
    batch = CAUSAL(ROWS, [0, 1])
    assert batch.inputs["input_ids"].shape == (2, 6)
    assert batch.inputs["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    # Row 0: tokens 3, 4, 5 are supervised, so positions 2, 3, 4 predict; row 1: tokens 1, 2, so positions 0, 1 of the second line.
    assert batch.where.tolist() == [2, 3, 4, 6, 7]
    assert batch.targets.tolist() == [*ROWS.tokens(0)[3:], *ROWS.tokens(1)[1:]]
    assert batch.rows.tolist() == [0, 0, 0, 1, 1]
    assert (batch.tokens, batch.predictions) == (9, 5)


def test_a_batch_without_padding_has_no_mask() -> None:
    assert set(CAUSAL(ROWS, [2, 2]).inputs) == {"input_ids"}


def test_no_document_predicts_the_first_token_of_the_next() -> None:
    every = FakeRows([3, 2], supervised_from=0.0)
    batch = Collator(Objective.CAUSAL_LANGUAGE_MODELING, pad_id=0, packing=Packing.POSITIONS).packed(every, [[0, 1]])
    assert batch.where.tolist() == [0, 1, 3]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert "attention_mask" not in batch.inputs


def test_a_block_mask_lets_a_document_see_itself_and_no_other() -> None:
    every = FakeRows([2, 2], supervised_from=0.0)
    batch = Collator(Objective.CAUSAL_LANGUAGE_MODELING, pad_id=0, packing=Packing.MASK).packed(every, [[0, 1]])
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert batch.inputs["attention_mask"][0, 0].int().tolist() == expected


def test_masks_depend_on_seed_epoch_and_row_alone() -> None:
    rows = FakeRows([40] * 4)
    collator = Collator(Objective.MASKED_LANGUAGE_MODELING, pad_id=0, masking=MASKING)
    first, again = collator(rows, [1, 3], epoch=2), collator(rows, [3], epoch=2)
    assert torch.equal(first.inputs["input_ids"][1], again.inputs["input_ids"][0])
    assert torch.equal(first.targets[first.rows == 1], again.targets)
    assert not torch.equal(first.inputs["input_ids"], collator(rows, [1, 3], epoch=3).inputs["input_ids"])


def test_the_shares_of_masking_are_those_of_the_paper() -> None:
    tokens = np.full(200_000, 50, np.int64)
    tokens[::10] = 2  # special: never chosen
    chosen, replaced = mask_row(tokens, np.ones(len(tokens), np.bool_), MASKING, epoch=0, index=0)
    assert not (tokens[chosen] == 2).any()
    assert len(chosen) / (0.9 * len(tokens)) == pytest.approx(0.15, abs=0.003)
    assert (replaced == MASKING.mask_id).mean() == pytest.approx(0.8 + 0.1 / VOCABULARY, abs=0.01)
    assert (replaced == 50).mean() == pytest.approx(0.1 + 0.1 / VOCABULARY, abs=0.01)


def test_a_short_row_has_at_least_one_mask_and_an_empty_one_none() -> None:
    single, _ = mask_row(np.array([2, 50, 3]), np.ones(3, np.bool_), MASKING, epoch=0, index=1)
    assert single.tolist() == [1]
    none, _ = mask_row(np.array([2, 3]), np.ones(2, np.bool_), MASKING, epoch=0, index=1)
    assert none.tolist() == []


def test_classes_are_targets_and_nothing_is_predicted_by_position() -> None:
    batch = Collator(Objective.CLASSIFICATION, pad_id=0)(ROWS, [2, 1])
    assert batch.targets.tolist() == [2, 1]
    assert batch.where.tolist() == []
    assert batch.ids == [ROWS.id(2), ROWS.id(1)]
