"""What `kubectl logs` shows while a pod trains: each beginning, each message, and the figures from time to time."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from finetune_api.wire import Activity
from finetune_trainer.progress import LOG_SECONDS, JobProgress, LogReporter, Part


def test_a_line_at_each_beginning_for_each_message_and_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    reporter = LogReporter(clock=lambda: now)
    with caplog.at_level(logging.INFO, "finetune_trainer"):
        reporter.report(Activity.TRAIN, stage="domain", done=1, total=120, loss=4.56789, learning_rate=2e-5, percent=3.0)
        now = LOG_SECONDS - 1
        reporter.report(Activity.TRAIN, stage="domain", done=2, total=120, loss=4.5)
        reporter.report(Activity.SAVE, stage="domain", message="step 2 of stage domain is saved and verified")
        reporter.report(Activity.TRAIN, stage="domain", done=3, total=120, tokens_per_second=5120.4)
        now = 3 * LOG_SECONDS
        reporter.report(Activity.TRAIN, stage="domain", done=4, total=120, loss=4.4)
        reporter.report(Activity.EVALUATE, suite="in-domain", done=0, total=300, unit="rows")
    assert [record.getMessage() for record in caplog.records] == [
        "train stage=domain 1/120 steps loss=4.568 learningRate=2e-05 percent=3",
        "step 2 of stage domain is saved and verified",
        "train stage=domain 3/120 steps tokensPerSecond=5120",
        "train stage=domain 4/120 steps loss=4.4",
        "evaluate suite=in-domain 0/300 rows",
    ]


def test_nothing_is_said_of_the_whole_job_before_its_first_part() -> None:
    """A process that resumes loads first: 0 % would be untrue."""
    sent: list[tuple[Activity, float | None]] = []

    class Kept:
        def report(self, activity: Activity, **fields: Any) -> None:
            sent.append((activity, fields.get("percent")))

    progress = JobProgress(Kept(), [Part("prepare", Activity.PREPARE, 1.0), Part("train", Activity.TRAIN, 3.0)], clock=lambda: 0.0)
    progress.report(Activity.LOAD)
    progress.enter("train")
    progress.report(Activity.TRAIN, done=2, total=3)
    progress.report(Activity.LOAD)
    assert sent == [(Activity.LOAD, None), (Activity.TRAIN, 75.0), (Activity.LOAD, 75.0)]
