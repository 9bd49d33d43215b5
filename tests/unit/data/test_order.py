"""Packing, length groups and mixing weights, as properties of many random sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.order import group_by_length, pack, select

lengths = st.lists(st.integers(1, 64), max_size=200)


@given(lengths)
def test_packs_hold_every_row_once_and_never_too_much(sizes: list[int]) -> None:
    packs = pack(sizes, 64)
    assert sorted(row for rows in packs for row in rows) == list(range(len(sizes)))
    assert all(sum(sizes[row] for row in rows) <= 64 for rows in packs)


@given(lengths)
def test_no_two_packs_would_fit_into_one(sizes: list[int]) -> None:
    filled = sorted(sum(sizes[row] for row in rows) for rows in pack(sizes, 64))
    assert len(filled) < 2 or filled[0] + filled[1] > 64


def test_a_row_goes_where_it_fits_best() -> None:
    assert pack([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]


def test_a_row_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="65 tokens"):
        pack([65], 64)


@given(lengths, st.integers(1, 8), st.integers(0, 5))
def test_groups_are_a_seeded_permutation(sizes: list[int], batch: int, seed: int) -> None:
    order = group_by_length(sizes, batch, seed)
    assert sorted(order.tolist()) == list(range(len(sizes)))
    assert order.tolist() == group_by_length(sizes, batch, seed).tolist()


def test_groups_put_similar_lengths_together() -> None:
    sizes = np.random.default_rng(0).integers(1, 500, 4000)

    def padding(order: np.ndarray) -> int:
        return sum(int(batch.max() * len(batch) - batch.sum()) for batch in sizes[order].reshape(-1, 8))

    assert padding(group_by_length(sizes, 8, 1)) < padding(np.random.default_rng(1).permutation(4000)) / 5
    assert group_by_length(sizes, 8, 1).tolist() != group_by_length(sizes, 8, 2).tolist()


def test_without_weights_every_row_comes_once() -> None:
    assert select([3, 1, 2], [0, 0, 1], [None, None], seed=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("weights", [(0.9, 0.1), (1.0, 1.0), (5.0, 95.0)])
def test_weights_are_shares_of_the_sizes(weights: tuple[float, float]) -> None:
    sizes = np.random.default_rng(0).integers(1, 100, 3000)
    sources = np.repeat([0, 1], [2000, 1000])
    rows = select(sizes, sources, weights, seed=7)
    taken = [int(sizes[rows][sources[rows] == number].sum()) for number in (0, 1)]
    assert taken[0] / sum(taken) == pytest.approx(weights[0] / sum(weights), abs=0.001)
    assert sum(taken) == pytest.approx(int(sizes.sum()), rel=0.001)
    assert rows.tolist() == select(sizes, sources, weights, seed=7).tolist()
    assert rows.tolist() != select(sizes, sources, weights, seed=8).tolist()


def test_a_repeated_source_comes_in_whole_copies_first() -> None:
    rows = select([1] * 12, [0] * 10 + [1] * 2, [1.0, 1.0], seed=0)
    assert np.bincount(rows)[10:].tolist() == [3, 3]
    assert np.bincount(rows, minlength=12)[:10].max() == 1


def test_a_source_without_rows_leaves_its_share_to_the_others() -> None:
    assert select([1, 1], [0, 0], [1.0, 1.0], seed=0).tolist() == [0, 1]
