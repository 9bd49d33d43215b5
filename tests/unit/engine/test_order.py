"""The order of the data is a function of seed and step: it covers every row, and can be asked for any step without the ones before."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest

from finetune_trainer.engine.order import DataOrder

LENGTHS = np.random.default_rng(0).integers(4, 60, 50).astype(np.int32)


def order(**changes: Any) -> DataOrder:
    options: dict[str, Any] = {"selection": np.arange(50), "batch_size": 4, "accumulation": 3, "seed": 7} | changes
    return DataOrder(lengths=LENGTHS, **options)


def rows_of(orders: DataOrder, steps: range) -> list[int]:
    return [row for step in steps for batch in orders.step(step).batches for line in batch for row in line]


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "packed": {"packed_length": 64},
    "grouped by length": {"grouped": True},
    "one batch a step": {"accumulation": 1},
    "some rows twice": {"selection": np.array([*range(50), 3, 3, 4])},
}


@pytest.mark.parametrize("case", CASES)
def test_an_epoch_takes_every_selected_row_as_often_as_selected(case: str) -> None:
    orders = order(**CASES[case])
    for epoch in range(2):
        steps = range(epoch * orders.steps_per_epoch, (epoch + 1) * orders.steps_per_epoch)
        assert sorted(rows_of(orders, steps)) == sorted(orders.selection.tolist())


@pytest.mark.parametrize("case", CASES)
def test_a_later_step_is_the_same_asked_alone(case: str) -> None:
    together = [rows_of(one, range(n, n + 1)) for one in [order(**CASES[case])] for n in range(12)]
    assert [rows_of(order(**CASES[case]), range(n, n + 1)) for n in range(12)] == together


def test_epochs_and_seeds_differ() -> None:
    first = rows_of(order(), range(5))
    assert first != rows_of(order(), range(5, 10))
    assert first != rows_of(order(seed=8), range(5))
    assert order().step(5).epoch == 1


def test_no_pack_is_longer_than_a_line() -> None:
    packs = order(packed_length=64).packs
    assert packs is not None
    assert max(int(LENGTHS[pack].sum()) for pack in packs) <= 64


def test_rows_of_a_group_have_similar_lengths() -> None:
    def spread(orders: DataOrder) -> float:
        batches = chain.from_iterable(orders.step(step).batches for step in range(orders.steps_per_epoch))
        return float(np.mean([np.ptp([LENGTHS[row] for line in batch for row in line]) for batch in batches]))

    assert spread(order(grouped=True)) < spread(order()) / 3


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps"), [(1.0, None, 5), (2.5, None, 13), (None, 7, 7), (None, None, 5)],
    ids=["one epoch", "a part of a step is a step", "steps are given", "one epoch by default"],
)  # fmt: skip
def test_steps_of_a_stage(epochs: float | None, max_steps: int | None, steps: int) -> None:
    # 50 rows, 4 a batch: 13 batches; 3 a step: 5 steps, the last with one batch.
    assert order().total_steps(epochs=epochs, max_steps=max_steps) == steps


def test_processes_share_the_batches_of_an_epoch() -> None:
    shares = [order(rank=rank, world=2) for rank in range(2)]
    assert {share.steps_per_epoch for share in shares} == {3}
    taken = {row for share in shares for row in rows_of(share, range(3))}
    assert taken == set(range(50))
