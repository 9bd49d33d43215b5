"""When a silent run is said to be silent, and when it is ended: by a clock that is moved by hand."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from finetune_api.constants import ExitCode, NoticeReason, Reason
from finetune_api.wire import Activity, Notice, RunResult
from finetune_trainer.attention import Attentive, duration
from finetune_trainer.ending import Ending
from finetune_trainer.logs import ProcessLog
from finetune_trainer.pulse import Pulse
from finetune_trainer.watchdog import LOOK_SECONDS, Hang, Say, Watch, Watchdog, beside, limit, looked, stacks, where

FLOOR: Final = 1800.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Reports:
    """A Reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def report(self, activity: Activity, **fields: Any) -> None:
        self.told.append({"activity": activity, **fields})


class Run:
    """A run that beats when it is told to, looked at every five seconds."""

    def __init__(self, activity: Activity = Activity.TRAIN, *, say: Say | None = None) -> None:
        self.clock = Clock()
        self.pulse = Pulse(self.clock)
        self.said: list[tuple[float, float | None]] = []
        self.hung: list[tuple[float, Hang]] = []
        self.activity = activity
        self.watchdog = Watchdog(
            FLOOR,
            activity=lambda: self.activity,
            say=say or self.say,
            end=lambda hang: self.hung.append((self.clock.now, hang)),
            pulse=self.pulse,
            clock=self.clock,
        )

    def say(self, seconds: float | None, limit: float) -> bool:
        self.said.append((self.clock.now, seconds))
        return True

    def go(self, seconds: float, *, beat_every: float | None = None) -> None:
        """Let time pass, until the process is ended."""
        end = self.clock.now + seconds
        next_beat = self.clock.now + beat_every if beat_every else None
        while self.clock.now < end and not self.hung:
            self.clock.now += 0.5
            if next_beat is not None and self.clock.now >= next_beat:
                self.pulse.beat()
                next_beat += beat_every or 0.0
            if self.clock.now % LOOK_SECONDS == 0:
                self.watchdog.look()

    def freeze(self, seconds: float) -> None:
        """Nothing runs in the process, and the watchdog's thread does not either."""
        self.clock.now += seconds


@pytest.mark.parametrize(
    ("activity", "told_at", "ended_at"),
    [(Activity.TRAIN, 900, 1800), (Activity.EVALUATE, 900, 1800), (Activity.SAVE, 900, 1800), (Activity.LOAD, 1800, 3600)],
)
def test_a_silence_is_told_at_half_of_the_time_and_then_ends_the_process(activity: Activity, told_at: float, ended_at: float) -> None:
    run = Run(activity)
    run.go(2 * FLOOR + 60)
    assert next(moment for moment, _ in run.said) == told_at
    assert {second[0] - first[0] for first, second in zip(run.said, run.said[1:], strict=False)} == {60.0}, "again each minute"
    ((moment, hang),) = run.hung
    assert (moment, hang.seconds) == (ended_at, ended_at)


HEALTHY: dict[str, Callable[[Run], object]] = {
    "steps of a blink": lambda run: run.go(9000, beat_every=0.5),
    "a step of a quarter of an hour": lambda run: run.go(9000, beat_every=890),
    "a save that advances by a chunk in a minute": lambda run: run.go(9000, beat_every=60),
    "frozen for a day": lambda run: (run.go(100, beat_every=1), run.freeze(86400), run.go(100), run.go(600, beat_every=1)),
    "frozen again and again": lambda run: [(run.go(20, beat_every=15), run.freeze(5000)) for _ in range(20)],
}


@pytest.mark.parametrize("case", HEALTHY)
def test_what_is_slow_and_well_is_let_be(case: str) -> None:
    run = Run()
    HEALTHY[case](run)
    assert (run.said, run.hung) == ([], [])


def test_a_run_that_goes_on_after_it_was_told_of_is_told_of_once_more() -> None:
    run = Run()
    run.go(1000)
    run.go(60, beat_every=5)
    assert [seconds for _, seconds in run.said] == [900.0, 960.0, None]
    assert not run.hung


def test_whoever_needs_an_hour_for_a_micro_batch_is_given_four() -> None:
    run = Run(Activity.LOAD)
    run.go(3000, beat_every=2990)  # its model was loaded in 50 minutes: 4 x that is allowed for as long as this is among the last silences
    run.activity = Activity.TRAIN
    run.go(11_900)
    assert not run.hung
    run.go(200)
    assert [round(hang.seconds, -2) for _, hang in run.hung] == [12_000]


def test_a_long_silence_is_forgotten_when_many_short_ones_follow() -> None:
    watch = Watch(beat=0.0, at=0.0)
    watch = looked(watch, at=3000.0, beat=2999.0, every=3000.0)
    assert limit(watch, floor=FLOOR, activity=Activity.TRAIN) == pytest.approx(4 * 2999)
    for moment in range(32):
        at = 3005.0 + 5 * moment
        watch = looked(watch, at=at, beat=at - 1, every=5.0)
    assert limit(watch, floor=FLOOR, activity=Activity.TRAIN) == FLOOR


def test_a_log_that_hangs_keeps_nobody_from_ending_the_process() -> None:
    """What is told of a silence may itself wait for the disk that hangs."""
    goes_on, told = threading.Event(), []

    def tell(seconds: float | None, limit: float) -> None:
        told.append(seconds)
        goes_on.wait()

    run = Run(say=beside(tell))
    run.go(FLOOR + 60)
    assert len(run.hung) == 1 and told == [900.0]
    goes_on.set()


def test_an_end_of_a_silence_that_could_not_be_told_is_told_later() -> None:
    heard: list[float | None] = []
    answers = iter([False, True, False, False, True])

    def say(seconds: float | None, limit: float) -> bool:
        heard.append(seconds)
        return next(answers)

    run = Run(say=say)
    run.go(920)
    run.go(60, beat_every=5)
    assert heard == [900.0, 905.0, None, None, None]


def test_reports_beat_and_a_silence_is_told_in_the_words_of_the_last_one() -> None:
    clock, sent = Clock(), Reports()
    pulse = Pulse(clock)
    recorded: list[str] = []
    reporter = Attentive(sent, pulse, record=recorded.append)
    clock.now = 7.0
    flat = Notice(reason=NoticeReason.LOSS_FLAT, message="flat")
    reporter.report(Activity.TRAIN, stage="task", done=40, total=100, loss=1.5, percent=40.0, metrics={"eval_loss": 2.0}, notices=[flat])
    assert pulse.at == 7.0
    reporter.report(Activity.SAVE, stage="task", done=40, message="saving")
    assert sent.told[-1]["notices"] == [flat], "it stands until a stage says something else"
    clock.now = 900.0
    reporter.silent(893.0, 1800.0)
    reporter.silent(953.0, 1800.0)
    first, second = sent.told[-2:]
    assert (first["activity"], first["done"], first["percent"], "metrics" in first) == (Activity.TRAIN, 40, 40.0, False)
    assert (
        first["message"].startswith("warning: save task, after step 40: nothing has advanced since ")
        and "After 30 min it ends" in first["message"]
    )
    assert [[notice.reason for notice in told["notices"]] for told in (first, second)] == [["NoProgress", "LossFlat"]] * 2
    assert second["message"] is None and second["notices"] == first["notices"], "said once"
    assert pulse.at == 7.0, "what the watchdog tells is no progress"
    reporter.silent(None, 1800.0)
    assert sent.told[-1]["message"] == "save task, after step 40 advances again"
    (silence,) = recorded
    assert re.fullmatch(r"save task, after step 40: nothing advanced for 1[45] min", silence)
    assert [notice.reason for notice in sent.told[-1]["notices"]] == ["LossFlat"]
    ended = reporter.hangs(Hang(1800.0, "the main thread stands in append (journal.py:40)", ""))
    assert (ended.reason, ended.exit_code, ended.stage, ended.step) == (Reason.STALLED, ExitCode.STALLED, "task", 40)
    assert ended.message == ("save task, after step 40: nothing has advanced for 30 min; the main thread stands in append (journal.py:40)")


@pytest.mark.parametrize(("saved", "step"), [(45, 45), (40, 42)], ids=["a step that was not reported", "a save that is told late"])
def test_the_step_that_a_silence_names(saved: int, step: int) -> None:
    sent = Reports()
    reporter = Attentive(sent, Pulse(Clock()))
    reporter.report(Activity.TRAIN, stage="task", done=42, total=100)
    reporter.report(Activity.SAVE, stage="task", done=saved)
    reporter.silent(900.0, 1800.0)
    assert sent.told[-1]["done"] == step, "a step that goes back would be refused"


def test_the_stacks_name_every_thread_and_end_with_the_main_one() -> None:
    waits, goes_on = threading.Event(), threading.Event()

    def stuck() -> None:
        waits.set()
        goes_on.wait()

    thread = threading.Thread(target=stuck, name="checkpoint_0")
    thread.start()
    waits.wait()
    text, place = stacks(), where()
    goes_on.set()
    thread.join()
    first, last = text.index("thread checkpoint_0:"), text.index("thread MainThread:")
    assert first < last and "in stuck" in text[first:last]
    assert f"{__file__}" in text[last:]
    assert place.startswith("the main thread stands in where (watchdog.py:")
    assert re.search(
        r", thread checkpoint_0 in wait \(threading\.py:\d+\) ← wait \(threading\.py:\d+\) ← stuck \(test_watchdog\.py:", place
    )


STUCK: Final = """
import ctypes, os, sys, time
from finetune_api.wire import Activity
from finetune_trainer.watchdog import Watchdog, watched

def end(hang):
    os.write(1, hang.where.encode())
    os._exit(40)

dog = Watchdog(0.5, activity=lambda: Activity.TRAIN, say=lambda seconds, limit: True, end=end, every=0.1, backstop=0.5)
with watched(dog):
    time.sleep(0.3)  # the first look, which sets faulthandler's clock
    {stuck}
"""


@pytest.mark.parametrize(
    ("stuck", "code", "out", "errors"),
    [
        ("os.read(os.pipe()[0], 1)", 40, "the main thread stands in <module> (<string>:", ""),
        ("ctypes.CDLL(None).pause()", 40, "the main thread stands in <module> (<string>:", ""),
        ("ctypes.PyDLL(None).pause()", 1, "", "Timeout (0:00:0"),
    ],
    ids=["in a read", "in native code", "in native code that holds the interpreter's lock"],
)
def test_a_real_process_is_ended_wherever_its_main_thread_stands(stuck: str, code: int, out: str, errors: str) -> None:
    done = subprocess.run([sys.executable, "-c", STUCK.format(stuck=stuck)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith(out) and errors in done.stderr


@pytest.mark.parametrize("hangs", [False, True], ids=["the run folder answers", "the run folder hangs too"])
def test_the_end_is_told_though_the_log_may_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool) -> None:
    """The termination message lies on the node, while the log and the result may lie on what no longer answers."""
    monkeypatch.setenv("FINETUNE_TERMINATION_LOG", str(tmp_path / "message"))
    goes_on = threading.Event()

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            goes_on.wait()

    process_log, stuck = ProcessLog(), Stuck()
    try:
        if hangs:
            logging.getLogger().addHandler(stuck)
        result = RunResult(outcome="Failed", exit_code=ExitCode.STALLED, reason=Reason.STALLED, message="it hangs", hint="Look.")
        code = Ending(process_log).hung(result, "thread MainThread:\n  files.py:71 in open_append", seconds=0.2 if hangs else 60.0)
        told = json.loads((tmp_path / "message").read_bytes())
        assert (code, told["reason"], told["message"]) == (40, "Stalled", "it hangs")
        assert any("files.py:71 in open_append" in line for line in told["logTail"])
    finally:
        goes_on.set()
        logging.getLogger().removeHandler(stuck)
        process_log.close()


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (119, "119 s"), (120, "2 min"), (1800, "30 min"), (5400, "1 h 30 min"), (7200, "2 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
