"""The operator's time is the API server's, whatever the clock of its machine says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from finetune_operator.clock import Clock

TRUE = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
HOUR = 3600.0


@pytest.mark.parametrize("off", [-HOUR, -10, 10, HOUR], ids=["an hour behind", "10 s behind", "10 s ahead", "an hour ahead"])
def test_a_clock_that_is_off_is_set_right_by_an_answer(off: float) -> None:
    clock = Clock(wall=lambda: TRUE + timedelta(seconds=off))
    clock.hear(format_datetime(TRUE, usegmt=True), 0.2)
    assert abs(clock.now() - TRUE) < timedelta(seconds=1)


@pytest.mark.parametrize("off", [-4, 0, 4])
def test_a_few_seconds_are_no_skew(off: float) -> None:
    wall = TRUE + timedelta(seconds=off)
    clock = Clock(wall=lambda: wall)
    clock.hear(format_datetime(TRUE, usegmt=True), 0.2)
    assert clock.now() == wall


@pytest.mark.parametrize(
    ("date", "seconds"),
    [(None, 0.1), ("yesterday", 0.1), ("Tue, 01 Jan 2030 12:00:00 -0000", 0.1), (format_datetime(TRUE, usegmt=True), 20.0)],
    ids=["none", "no date", "no zone", "a slow answer"],
)
def test_what_tells_no_time_changes_nothing(date: str | None, seconds: float) -> None:
    wall = TRUE + timedelta(hours=1)
    clock = Clock(wall=lambda: wall)
    clock.hear(date, seconds)
    assert clock.now() == wall


def test_a_clock_that_was_set_meanwhile_is_followed(caplog: pytest.LogCaptureFixture) -> None:
    wall = [TRUE + timedelta(hours=1)]
    clock = Clock(wall=lambda: wall[0])
    clock.hear(format_datetime(TRUE, usegmt=True), 0.2)
    wall[0] = TRUE
    clock.hear(format_datetime(TRUE, usegmt=True), 0.2)
    assert clock.now() == TRUE
    wall[0] = TRUE - timedelta(hours=1)
    clock.hear(format_datetime(TRUE, usegmt=True), 0.2)
    assert abs(clock.now() - TRUE) < timedelta(seconds=1)
    assert [each.getMessage() for each in caplog.records] == ["this machine's clock is 3599 s ahead of the API server's, which counts"]
