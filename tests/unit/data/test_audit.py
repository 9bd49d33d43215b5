"""Counts over hashes: the same whether they are taken at once or in slices."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.audit import duplicates, found_in
from finetune_trainer.data.splits import chosen
from finetune_trainer.data.tokenise import EDGES, count_lengths, histogram

hashes = st.lists(st.sampled_from([0, 1, 2, 1 << 62, (1 << 63) + 5, (1 << 64) - 1, (1 << 64) - 2]), max_size=40)


@given(hashes, st.integers(1, 50))
def test_duplicates(values: list[int], at_once: int) -> None:
    assert duplicates(np.asarray(values, np.uint64), at_once=at_once) == len(values) - len(set(values))


@given(hashes, hashes, st.integers(1, 50))
def test_found_in(measured: list[int], training: list[int], at_once: int) -> None:
    found = found_in(np.asarray(measured, np.uint64), np.asarray(training, np.uint64), at_once=at_once)
    assert found.tolist() == [value in training for value in measured]


def test_a_fraction_is_a_share_of_evenly_spread_hashes() -> None:
    values = np.random.default_rng(0).integers(0, 1 << 64, 100_000, np.uint64)
    assert abs(chosen(values, 0.02).mean() - 0.02) < 0.002
    assert (chosen(values, 0.02) <= chosen(values, 0.05)).all(), "a larger share holds the smaller one"


@given(st.lists(st.integers(0, 1 << 23), min_size=1, max_size=50))
def test_a_histogram_holds_every_row_in_its_bucket(lengths: list[int]) -> None:
    found = histogram(count_lengths(lengths))
    assert sum(found.counts) == len(lengths)
    assert len(found.edges) == len(found.counts) + 1
    for low, high, count in zip(found.edges, found.edges[1:], found.counts, strict=False):
        assert count == sum(low <= length < high for length in lengths)


def test_buckets_are_fine_enough_to_see_a_limit() -> None:
    assert {1, 2, 3, 4, 6, 8, 12, 512, 768, 1024, 2048} <= set(EDGES.tolist())
