"""What is found in a loss curve, and above all what is not: series as real runs have them, each with many seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from finetune_api.constants import NOTICE_HINTS, NoticeReason
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.diagnosis import Change, Diagnosis, Sums, changes, period
from tests.builders import stage

Random = np.random.Generator
Course = Callable[[Random, int], float]
"""The training loss at a point, from 0."""
POINTS = 400


def made(**training: Any) -> Stage:
    return Stage.model_validate(stage("task", training={"learningRate": 2e-4, "loggingSteps": 10, **training}))


def diagnosis(of: Stage | None = None, *, points: int = POINTS, steps_per_epoch: int = 10_000) -> Diagnosis:
    of = of or made()
    return Diagnosis(of, total_steps=points * of.training.logging_steps, steps_per_epoch=steps_per_epoch)


def curve(course: Course, seed: int, points: int = POINTS, logging_steps: int = 10) -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(seed)
    for number in range(points):
        yield {"step": logging_steps * (number + 1), "loss": course(random, number)}


def noise(random: Random, deviation: float) -> float:
    """Now and then a batch is far off, as in real data."""
    return float(random.standard_t(4)) * deviation


def learning(random: Random, number: int) -> float:
    return 1.8 + 1.5 * math.exp(-number / 40) + noise(random, 0.08)


HEALTHY: dict[str, Course] = {
    "it learns": learning,
    "it learns, in small and noisy batches": lambda random, number: 2.0 + 1.5 * math.exp(-number / 60) + noise(random, 0.5),
    "it learns in the first steps, and then no more": lambda random, number: 1.2 + 3 * math.exp(-number / 4) + noise(random, 0.04),
    "it learns slowly, all the way": lambda random, number: 2.5 - 0.3 * number / POINTS + noise(random, 0.05),
    "a domain that the model nearly knows": lambda random, number: 2.5 - 0.15 * math.log1p(number) / 6 + noise(random, 0.03),
    "an epoch learned by heart after the other": lambda random, number: 2.2 - 0.5 * (number // 100) + noise(random, 0.06),
    "a spike that it recovers from": lambda random, number: learning(random, number) + (4.0 if 200 <= number < 206 else 0.0),
    "spikes again and again": lambda random, number: learning(random, number) + (2.0 if number % 50 == 0 else 0.0),
    "up in the warm-up, then down": lambda random, number: (
        2.0 + 0.15 * math.sin(min(number, 40) / 12.7) - 0.002 * number + noise(random, 0.04)
    ),
    "down to nothing": lambda random, number: abs(4 * math.exp(-number / 30) + noise(random, 0.004)),
    "nothing left to learn from the start": lambda random, number: abs(0.02 + noise(random, 0.003)),
    "up and down in waves": lambda random, number: 2.0 - 0.002 * number + 0.06 * math.sin(number / 9) + noise(random, 0.04),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_nothing_is_found_where_nothing_is_wrong(case: str) -> None:
    for seed in range(40):
        assert changes(diagnosis(), curve(HEALTHY[case], seed)) == [], f"seed {seed}"


def rising(random: Random, number: int) -> float:
    """It learns for a while, and then the rate is too much for it."""
    return learning(random, number) + 0.006 * max(0, number - 200)


def flat(random: Random, number: int) -> float:
    return 2.4 + noise(random, 0.03)


WRONG: dict[str, tuple[Course, NoticeReason, int, str]] = {
    "it rises slowly": (rising, NoticeReason.LOSS_RISING, 3100, "Lower training.learningRate to 6.7e-05 (a third; it is 0.0002)."),
    "it rises in noise": (
        lambda random, number: learning(random, number) + 0.01 * max(0, number - 150) + noise(random, 0.3),
        NoticeReason.LOSS_RISING,
        3500,
        "training.learningRate",
    ),
    "it blows up": (
        lambda random, number: learning(random, number) * 1.03 ** max(0, number - 300),
        NoticeReason.LOSS_RISING,
        3700,
        "training.learningRate",
    ),
    "it does not learn": (flat, NoticeReason.LOSS_FLAT, 3000, "raise training.learningRate to 0.0006 (three times it; it is 0.0002)."),
    "a rate of almost nothing": (
        lambda random, number: 3.1 - 0.01 * number / POINTS + noise(random, 0.03),
        NoticeReason.LOSS_FLAT,
        3000,
        "training.learningRate",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_once_in_time_and_with_a_value_to_try(case: str) -> None:
    course, reason, latest, hint = WRONG[case]
    for seed in range(25):
        found = changes(diagnosis(), curve(course, seed))
        assert len(found) == 1, f"seed {seed}: {found}"
        (only,) = found
        assert only.reason is reason and only.step <= latest, f"seed {seed}: {only}"
        assert only.notice is not None
        assert only.notice.message.startswith("stage task: ") and only.notice.message.endswith(hint if "(" in hint else ".")
        assert hint in only.notice.message and NOTICE_HINTS[reason] in only.notice.message


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (rising, lambda random, number: 1.7 + noise(random, 0.05), NoticeReason.LOSS_RISING),
        (flat, lambda random, number: 1.6 + noise(random, 0.05), NoticeReason.LOSS_FLAT),
    ],
    ids=["rising", "flat"],
)
def test_what_is_over_is_told_once_too(before: Course, after: Course, reason: NoticeReason) -> None:
    for seed in range(10):
        found = changes(diagnosis(), curve(lambda random, number: (before if number < 350 else after)(random, number), seed, points=900))
        assert [(change.reason, change.notice is not None) for change in found] == [(reason, True), (reason, False)], f"seed {seed}"


def test_a_resume_finds_what_a_run_without_one_finds() -> None:
    points = list(curve(rising, 3))
    whole, resumed = diagnosis(), diagnosis()
    found = changes(whole, points)
    changes(resumed, points[:250])
    assert changes(resumed, points[250:]) == [change for change in found if change.step > 2500]
    assert resumed.standing == whole.standing


def test_rows_sorted_by_length_look_like_a_loss_that_rises_and_are_not_taken_for_one() -> None:
    """Within each window of 50 batches the rows get shorter, and the loss a token of short rows is higher."""
    grouped = made(groupByLength=True, loggingSteps=1)

    def sawtooth(random: Random, number: int) -> float:
        return 2.0 + 1.0 * math.exp(-number / 60) + 0.8 * (number % 50) / 50 + noise(random, 0.05)

    for seed in range(20):
        assert changes(diagnosis(grouped), curve(sawtooth, seed, logging_steps=1)) == []
    assert changes(diagnosis(made(loggingSteps=1)), curve(sawtooth, 0, logging_steps=1)), "what it would be taken for"


@pytest.mark.parametrize(
    ("training", "steps_per_epoch", "steps"),
    [
        ({}, 1000, 1),
        ({"groupByLength": True}, 1000, 50),
        ({"groupByLength": True, "gradientAccumulationSteps": 4}, 1000, 13),
        ({"groupByLength": True}, 63, 63),
        ({"groupByLength": True, "packing": True}, 1000, 1),
    ],
)
def test_the_period_of_the_order(training: dict[str, Any], steps_per_epoch: int, steps: int) -> None:
    assert period(made(**training).training, steps_per_epoch) == steps


def validated(losses: list[float], training: list[float]) -> list[Change]:
    """Ten points of the training loss before each evaluation."""
    found, followed = [], diagnosis()
    for number, (loss, trained) in enumerate(zip(losses, training, strict=True), 1):
        for point in range(10):
            assert followed.logged(100 * number - 90 + 10 * point, trained) == []
        found += followed.measured(100 * number, loss)
    return found


FALLING = [2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6]
GAPS: dict[str, tuple[list[float], list[float], list[int]]] = {
    "it opens": ([2.1, 1.95, 1.9, 1.93, 1.99, 2.1, 2.3, 2.6], FALLING, [500]),
    "it opens and closes": ([2.1, 1.9, 1.95, 2.05, 2.1, 1.91, 1.85, 1.8], FALLING, [400, 600]),
    "both fall": ([2.1, 1.9, 1.8, 1.75, 1.7, 1.68, 1.66, 1.65], FALLING, []),
    "it stands still": ([2.1, 1.9, 1.9, 1.91, 1.9, 1.92, 1.9, 1.91], FALLING, []),
    "a wobble": ([2.1, 1.9, 1.98, 1.88, 1.95, 1.86, 1.94, 1.85], FALLING, []),
    "a little, all the time": ([2.1, 1.9, 1.905, 1.91, 1.915, 1.92, 1.925, 1.93], FALLING, []),
    "both rise: that is another trouble": ([2.1, 1.9, 2.0, 2.1, 2.2, 2.3, 2.4, 2.5], [2.0, 1.8, 1.9, 1.91, 1.92, 1.93, 1.94, 1.95], []),
    "too few to tell": ([1.9, 2.0, 2.2], FALLING[:3], []),
}


@pytest.mark.parametrize("case", GAPS)
def test_a_gap_between_training_and_validation(case: str) -> None:
    losses, training, steps = GAPS[case]
    found = validated(losses, training)
    assert [(change.step, change.reason) for change in found] == [(step, NoticeReason.GAP_OPENING) for step in steps]
    if found:
        assert found[0].notice is not None
        assert found[0].notice.message.endswith(f"or by training.maxSteps: {100 * (1 + losses.index(min(losses[:5])))}.")
        assert "while the training loss fell on (" in found[0].notice.message


def test_means_are_those_of_numpy_and_a_trend_is_no_noise() -> None:
    random = np.random.default_rng(0)
    for slope in (0.0, 0.05):
        values, sums = 5 + slope * np.arange(2000) + random.normal(0, 1, 2000), Sums()
        for value in values:
            sums.append(float(value))
        assert sums.mean(20, 150) == pytest.approx(values[20:150].mean())
        assert sums.error(0, 2000) == pytest.approx(1 / math.sqrt(2000), rel=0.05)


def test_every_notice_has_a_hint() -> None:
    assert set(NOTICE_HINTS) == set(NoticeReason)
