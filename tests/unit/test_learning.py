"""The comparison of `make bench-learning`, on made-up figures: what it calls convincing, and what it must not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.learning import compare

GENERATOR = np.random.default_rng(1)
WORDS = GENERATOR.normal(3.5, 0.8, (3, 300))


@pytest.mark.parametrize(
    ("gain", "seed_gains", "convincing"),
    [
        pytest.param(0.27, (0, 0, 0), True, id="every seed better"),
        pytest.param(0.0, (0, 0, 0), False, id="no difference"),
        pytest.param(-0.27, (0, 0, 0), False, id="every seed worse"),
        pytest.param(0.2, (0.2, 0.2, -0.5), False, id="better in the mean, one seed worse"),
    ],
)
def test_convincing_is_an_interval_above_zero_with_one_sign(gain: float, seed_gains: tuple[float, ...], convincing: bool) -> None:
    noise = np.random.default_rng(2).normal(0, 0.3, WORDS.shape)
    result = compare(WORDS, WORDS - gain - np.array(seed_gains)[:, None] - noise + noise.mean(axis=1, keepdims=True))
    assert result.convincing is convincing
    assert result.low < result.mean < result.high
    assert result.mean == pytest.approx(gain + float(np.mean(seed_gains)), abs=1e-9)


def test_words_are_paired() -> None:
    """Words differ far more than the arms do: unpaired, this difference would drown."""
    result = compare(WORDS * 10, WORDS * 10 - 0.05)
    assert result.high - result.low < 1e-9
    assert result.convincing
