"""What a stage notices while it trains: told once when it begins and once when it is over, and as standing with every report between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import NoticeReason
from finetune_api.wire import Activity
from finetune_trainer.diagnosis import Diagnosis
from finetune_trainer.engine.noticing import OVER, StageNotices
from finetune_trainer.engine.waiting import DataShare, Piece, judged
from tests.unit.engine.stage_run import stage, train

Told = list[tuple[Activity, dict[str, Any]]]


@pytest.mark.parametrize(
    ("pieces", "before", "share"),
    [
        pytest.param([Piece(10, 9, 50)] * 11, None, None, id="too short a time"),
        pytest.param([Piece(60, 50, 5)] * 3, None, None, id="too few steps"),
        pytest.param([Piece(10, 9, 50)] * 12, None, 0.9, id="most of it"),
        pytest.param([Piece(10, 3, 50)] * 30, None, 0.3, id="just enough"),
        pytest.param([Piece(10, 2.9, 50)] * 30, None, None, id="just too little"),
        pytest.param([Piece(10, 2.5, 50)] * 30, 0.4, 0.25, id="less, but not over"),
        pytest.param([Piece(10, 1.9, 50)] * 30, 0.4, None, id="over"),
        pytest.param([Piece(10, 9, 50)] + [Piece(10, 0, 50)] * 29, None, None, id="one slow beginning"),
        pytest.param([Piece(10, 0, 50)] * 2, 0.4, 0.4, id="nothing known yet"),
    ],
)
def test_when_data_is_what_training_waits_for(pieces: list[Piece], before: float | None, share: float | None) -> None:
    assert judged(pieces, before=before) == (pytest.approx(share) if share is not None else None)


def test_only_the_last_minutes_count() -> None:
    share = DataShare()
    changed = [step for step in range(1, 3001) if share.add(1.0, 0.5 if 1000 < step <= 2000 else 0.01)]
    first, last = changed
    assert 1150 < first < 1250 and 2150 < last < 2250
    assert share.bound is None


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Reports:
    def __init__(self) -> None:
        self.told: Told = []

    def report(self, activity: Activity, **fields: Any) -> None:
        self.told.append((activity, fields))


def test_a_loader_that_is_too_slow_is_told_of_until_it_is_fast_again() -> None:
    clock, reports, planned = Clock(), Reports(), stage({"perDeviceTrainBatchSize": 4})
    recorded: list[tuple[int, str | None]] = []
    notices = StageNotices(
        planned,
        Diagnosis(planned, total_steps=9000, steps_per_epoch=100),
        total_steps=9000,
        reporter=reports,
        clock=clock,
        record=lambda step, text: recorded.append((step, text)),
    )
    for step in range(1, 1501):
        clock.now += 1.0
        notices.stepped(step, waited=0.6 if step <= 700 else 0.0)
        if step == 700:
            clock.now += 3600.0  # an evaluation: no step waits for anything
            notices.start()
            (standing,) = notices.standing()
    assert standing.reason is NoticeReason.DATA_BOUND
    assert standing.message.startswith("stage task: training waited for its data for 60% of the last 5 minutes.")
    assert standing.message.endswith("training.perDeviceTrainBatchSize to 8 (twice it).")
    (_, began), (_, ended) = reports.told
    assert (began["message"], began["notices"]) == (f"warning: {standing.message}", [standing])
    assert ended["message"].endswith(OVER[NoticeReason.DATA_BOUND]) and ended["notices"] == []
    assert recorded == [(began["done"], standing.message), (ended["done"], None)], "for the report, since no loss shows it"


def test_a_stage_ends_what_its_data_made_slow() -> None:
    clock, planned = Clock(), stage({})
    notices = StageNotices(
        planned, Diagnosis(planned, total_steps=9000, steps_per_epoch=100), total_steps=9000, reporter=Reports(), clock=clock
    )
    for step in range(1, 500):
        clock.now += 1.0
        notices.stepped(step, waited=0.9)
    assert notices.standing()
    notices.ended()
    assert notices.standing() == []


def test_a_real_stage_that_does_not_learn_says_so_and_a_resumed_one_does_not_say_it_again(tmp_path: Path) -> None:
    planned = stage({"learningRate": 1e-12, "maxSteps": 150, "perDeviceTrainBatchSize": 40}, checkpoint={"everySteps": 120})
    told: Told = []
    train(tmp_path, planned, on_report=lambda activity, fields: told.append((activity, fields)))
    messages = [fields["message"] for activity, fields in told if activity is Activity.TRAIN and fields.get("message")]
    (message,) = [each for each in messages if each.startswith("warning: ")]
    assert "the training loss has fallen by less than 1 %" in message and "raise training.learningRate to 3e-12" in message
    last = [fields for activity, fields in told if activity is Activity.TRAIN and "loss" in fields][-1]
    assert [notice.reason for notice in last["notices"]] == [NoticeReason.LOSS_FLAT]

    again: Told = []
    train(tmp_path, planned, on_report=lambda activity, fields: again.append((activity, fields)))
    assert not [fields for _, fields in again if str(fields.get("message")).startswith("warning: ")]


def test_a_real_stage_that_learns_its_rows_by_heart_says_that_the_gap_opens(tmp_path: Path) -> None:
    planned = stage({"learningRate": 1e-2, "maxSteps": 40, "perDeviceTrainBatchSize": 20}, evalSteps=5)
    told: Told = []
    train(tmp_path, planned, validated=True, on_report=lambda activity, fields: told.append((activity, fields)))
    warnings = [fields["message"] for activity, fields in told if str(fields.get("message")).startswith("warning: ")]
    assert any("while the training loss fell on (" in message for message in warnings), warnings
    last = [fields for activity, fields in told if activity is Activity.TRAIN and "notices" in fields][-1]
    assert NoticeReason.GAP_OPENING in [notice.reason for notice in last["notices"]]


def test_every_notice_of_a_stage_has_words_for_its_end() -> None:
    assert set(OVER) == set(NoticeReason) - {NoticeReason.NO_PROGRESS}
