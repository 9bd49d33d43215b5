"""What is said while a run goes on."""

from __future__ import annotations

import io

import pytest

from finetune_api.wire import Activity, ProgressReport
from finetune_cli.progress import Track, amount, duration
from finetune_cli.view import Lines, view_for

HEADLINES = [
    (ProgressReport(activity=Activity.PREPARE), "preparing data"),
    (ProgressReport(activity=Activity.PREPARE, stage="task"), "preparing data of task"),
    (ProgressReport(activity=Activity.LOAD, stage="domain"), "loading the model for domain (stage 1 of 2)"),
    (ProgressReport(activity=Activity.EVALUATE, suite="words"), "evaluating base on words"),
    (ProgressReport(activity=Activity.EVALUATE, stage="base", suite="words"), "evaluating base on words"),
    (ProgressReport(activity=Activity.EVALUATE, stage="domain", suite="words"), "evaluating after domain on words"),
    (ProgressReport(activity=Activity.EVALUATE, stage="task", suite="validation"), "validating task (stage 2 of 2)"),
    (ProgressReport(activity=Activity.TRAIN, stage="task"), "training task (stage 2 of 2)"),
    (ProgressReport(activity=Activity.SAVE, stage="task"), "saving task (stage 2 of 2)"),
    (ProgressReport(activity=Activity.HAND_OVER, stage="domain"), "handing over after domain"),
    (ProgressReport(activity=Activity.PUBLISH), "publishing the model and its report"),
]


@pytest.mark.parametrize(("report", "text"), HEADLINES, ids=[text for _, text in HEADLINES])
def test_the_headline_names_activity_stage_and_suite(report: ProgressReport, text: str) -> None:
    track = Track(["domain", "task"])
    track.update(report)
    assert track.headline() == text


def test_the_headline_names_the_arm_of_a_job_that_trains_several() -> None:
    track = Track(["domain", "task"], ["seed 1", "seed 2", "seed 1, direct"])
    told = [
        ProgressReport(activity=Activity.TRAIN, stage=stage, arm=arm)
        for stage, arm in (("task", 0), ("task", 2), ("task", None), ("task", 9))
    ]
    began = [(track.update(report), track.headline()) for report in told]
    assert began == [
        (True, "seed 1: training task (stage 2 of 2)"),
        (True, "seed 1, direct: training task (stage 2 of 2)"),
        (True, "training task (stage 2 of 2)"),
        (True, "training task (stage 2 of 2)"),
    ]


def test_figures_stay_until_newer_ones_come_and_go_with_their_stage() -> None:
    track = Track(["domain", "task"])
    track.update(
        ProgressReport(
            activity=Activity.TRAIN, stage="domain", done=40, total=1200, loss=0.81234, learning_rate=2e-5, tokens_per_second=5120.4
        )
    )
    assert track.details() == ["step 40 of 1,200", "loss 0.8123", "learning rate 2e-05", "5,120 tokens/s"]
    track.update(ProgressReport(activity=Activity.TRAIN, stage="domain", done=41, total=1200))
    assert track.details() == ["step 41 of 1,200", "loss 0.8123", "learning rate 2e-05", "5,120 tokens/s"]
    track.update(ProgressReport(activity=Activity.PREPARE, done=500, unit="rows"))
    assert track.details() == ["500 rows"]


def test_the_percentage_never_goes_back_nor_above_100() -> None:
    track = Track(["domain"])
    seen = []
    for percent in (10.0, 40.0, 35.0, None, 250.0):
        track.update(ProgressReport(activity=Activity.TRAIN, percent=percent))
        seen.append(track.percent)
    assert seen == [10.0, 40.0, 40.0, 40.0, 100.0]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (252, "4:12"), (3753, "1:02:33"), (-3, "0:00")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


AMOUNTS = [
    (40, 120, "steps", "step 40 of 120"),
    (1500, None, "rows", "1,500 rows"),
    (500, 1000, "rows", "500 of 1,000 rows"),
    (78, 24_492, "bytes", "78 bytes of 23.9 KiB"),
    (1_572_864, 1_073_741_824, "bytes", "1.5 MiB of 1.0 GiB"),
    (5 * 2**50, None, "bytes", "5120.0 TiB"),
]


@pytest.mark.parametrize(("done", "total", "unit", "text"), AMOUNTS)
def test_amounts(done: int, total: int | None, unit: str, text: str) -> None:
    assert amount(done, total, unit) == text


def test_a_log_gets_a_line_when_something_begins_and_every_few_seconds() -> None:
    now = [0.0]
    stream = io.StringIO()
    lines = Lines(["domain", "task"], stream, clock=lambda: now[0])

    def at(seconds: float, **fields: object) -> None:
        now[0] = seconds
        lines.report(ProgressReport.model_validate(fields))

    at(1, activity="evaluate", suite="words", percent=5)
    at(2, activity="train", stage="domain", done=1, total=50, percent=10, loss=3)
    at(3, activity="train", stage="domain", done=2, total=50, percent=12)
    at(4, activity="save", stage="domain", done=2, percent=12, message="checkpoint 2 saved")
    at(5, activity="train", stage="domain", done=3, total=50, percent=12)
    at(11, activity="train", stage="domain", done=9, total=50, percent=20, loss=2.5, etaSeconds=95)
    for seconds in (12, 40, 41, 42):
        now[0] = seconds
        lines.tick()
    assert stream.getvalue().splitlines() == [
        "[0:01]   5 %  evaluating base on words",
        "[0:02]  10 %  training domain (stage 1 of 2)  step 1 of 50  loss 3",
        "[0:04] checkpoint 2 saved",
        "[0:11]  20 %  training domain (stage 1 of 2)  step 9 of 50  loss 2.5  1:35 left",
        "[0:41]  20 %  training domain (stage 1 of 2)  step 9 of 50  loss 2.5  1:35 left",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_a_file_lines_and_quiet_nothing() -> None:
    for silent, said in ((False, "[0:00]   0 %  preparing data\n"), (True, "")):
        file = io.StringIO()
        view_for([], file, quiet=silent).report(ProgressReport(activity=Activity.PREPARE))
        assert file.getvalue() == said
    stream = Terminal()
    view = view_for(["domain", "task"], stream, quiet=False)
    view.report(
        ProgressReport(
            activity=Activity.TRAIN, stage="domain", done=3, total=9, percent=41, loss=0.5, eta_seconds=60, message="resumed from step 2"
        )
    )
    view.tick()
    view.close()
    drawn = stream.getvalue()
    for part in ("resumed from step 2", "training domain (stage 1 of 2)", "41 %", "step 3 of 9", "loss 0.5", "1:00 left"):
        assert part in drawn
