"""Whose folder it is: one live process, one manifest, one number of threads; and what a signal means."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import ExitCode, Reason
from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.wire import TrainerConfig
from finetune_trainer.checkpoint.identity import claim
from finetune_trainer.checkpoint.lock import hold
from finetune_trainer.checkpoint.signals import stop_on_signals
from finetune_trainer.errors import TrainerError
from tests.unit.checkpoint.runs import run_in

HOLDER = """
import sys
from pathlib import Path
from finetune_trainer.checkpoint.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_in_use_is_refused_and_its_user_named_until_that_one_dies(tmp_path: Path) -> None:
    lock = tmp_path / "run/lock"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(TrainerError) as caught, hold(lock):
            pass
        assert caught.value.reason is Reason.RUN_FOLDER_BUSY
        assert f"{lock.parent}: another live run uses this folder: process {holder.pid} on " in str(caught.value)
        with hold(lock, fenced=True) as held:
            assert not held, "in a pod the holder is what a lost node still runs"
        assert json.loads(lock.read_text())["pid"] == holder.pid
        holder.kill()
        holder.wait()
    with hold(lock, fenced=True) as held:
        assert held
    with hold(lock):
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def job(**changes: Any) -> TrainerConfig:
    """A TrainerConfig of a job with one stage; `changes` go into the stage, `job` and `threads` aside."""
    stage = {
        "name": "domain",
        "objective": "causalLanguageModeling",
        "data": {"train": [{"uri": "file://data.txt"}]},
        "method": {"type": "full"},
        **{key: value for key, value in changes.items() if key not in ("job", "threads", "seed")},
    }
    manifest = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": changes.get("job", "intents")},
        "spec": {"model": {"uri": "file://model"}, "seed": changes.get("seed", 7), "stages": [stage]},
    }
    runtime = Runtime(run_folder="run", threads=changes.get("threads", 2))
    return plan(FineTuneJob.model_validate(manifest), runtime=runtime).segments[1]


def test_the_first_start_records_whose_folder_it_is(tmp_path: Path) -> None:
    config = job()
    identity = claim(run_in(tmp_path), config)
    assert (identity.job, identity.config_hash, identity.threads) == ("intents", config.config_hash, 2)


@pytest.mark.parametrize(
    "same",
    [{"threads": 8}, {"checkpoint": {"everySteps": 5, "keep": 7}}, {"resources": {"gpus": 1}}],
    ids=["other threads", "other checkpoints", "other resources"],
)
def test_what_does_not_decide_the_result_may_change_and_the_threads_stay(tmp_path: Path, same: dict[str, Any]) -> None:
    claim(run_in(tmp_path), job())
    assert claim(run_in(tmp_path), job(**same)).threads == 2


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "another job": ({"job": "other"}, "this folder holds the run of job 'intents', not of 'other'"),
    "another seed": (
        {"seed": 8},
        "this folder holds a run of another manifest of job 'intents': spec.seed was 7 and is now 8",
    ),
    "another learning rate": (
        {"training": {"learningRate": 0.001}},
        "this folder holds a run of another manifest of job 'intents': spec.stages[0].training.learningRate was 2e-05 and is now 0.001",
    ),
    "another seed, and other checkpoints, which don't matter": (
        {"seed": 8, "checkpoint": {"everySteps": 5}},
        "this folder holds a run of another manifest of job 'intents': spec.seed was 7 and is now 8",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_manifest_s_folder_is_refused_with_what_differs(tmp_path: Path, case: str) -> None:
    changes, message = OTHERS[case]
    run = run_in(tmp_path)
    claim(run, job())
    with pytest.raises(TrainerError) as caught:
        claim(run, job(**changes))
    assert caught.value.reason is Reason.RUN_FOLDER_MISMATCH and caught.value.exit_code is ExitCode.BAD_CONFIG
    assert str(caught.value) == f"{run.root}: {message}"
    claim(run, job())


def test_an_unreadable_identity_is_not_overwritten(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    run.root.mkdir()
    run.identity.write_text("{")
    with pytest.raises(TrainerError, match=r"run\.json: it can't be read, so whose run this folder holds is unknown"):
        claim(run, job())
    assert run.identity.read_text() == "{"


class Ended(Exception):
    pass


def end(number: int) -> None:
    raise Ended(signal.Signals(number).name)


SIGNALS: dict[str, tuple[list[int], str]] = {
    "SIGTERM asks for a save": ([signal.SIGTERM], "SIGTERM"),
    "so does Ctrl-C": ([signal.SIGINT], "SIGINT"),
    "a second SIGTERM changes nothing": ([signal.SIGTERM, signal.SIGTERM], "SIGTERM"),
    "Ctrl-C after SIGTERM changes nothing": ([signal.SIGTERM, signal.SIGINT], "SIGTERM"),
}


@pytest.mark.parametrize("case", SIGNALS)
def test_signals_raise_the_flag(case: str) -> None:
    numbers, reason = SIGNALS[case]
    with stop_on_signals(end) as flag:
        assert not flag()
        for number in numbers:
            signal.raise_signal(number)
        assert flag() and flag.signal == reason


def test_a_second_ctrl_c_means_now() -> None:
    with stop_on_signals(end) as flag:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Ended, match="SIGINT"):
            signal.raise_signal(signal.SIGINT)
        assert flag.signal == "SIGINT"


def test_the_handlers_before_come_back() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with stop_on_signals(end):
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before


def test_ending_by_the_signal_ends_the_process_by_it() -> None:
    script = "from finetune_trainer.checkpoint.signals import end_by; end_by(2); print('still here')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT and done.stdout == ""
