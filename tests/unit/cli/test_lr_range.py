"""`finetune run --lr-range` around a process that behaves, misbehaves, or is asked for what is not there."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_cli.errors import CommandError
from finetune_cli.lr_range import Range, run_range, words
from finetune_cli.request import RunRequest
from tests.unit.cli.manifests import GOOD

STAND_IN = Path(__file__).with_name("stand_in_trainer.py")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(GOOD)
    return path


def ran(job: Path, asked: Range, *, mode: str = "succeeds", output: str = "text") -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    request = RunRequest(manifest=str(job), run_folder=job.parent / "run", threads=1, output=output)
    code = run_range(
        request, asked, stdin=io.BytesIO(), stdout=out, stderr=err, trainer_command=(sys.executable, str(STAND_IN), mode)
    )  # fmt: skip
    return code, out.getvalue(), err.getvalue()


def test_it_says_what_to_write_and_leaves_the_jobs_own_run_alone(job: Path) -> None:
    code, out, _ = ran(job, Range(low=1e-5, steps=20))
    assert code == 0
    assert "falls fastest at 2e-05" in out
    assert "Suggested: learningRate between 1.0e-05 and 2.0e-05. The manifest has 0.0001." in out
    assert "lr-range.svg" in out
    assert [path.name for path in (job.parent / "run").iterdir()] == ["lr-range"]


def test_the_trainer_is_told_what_was_asked_for(job: Path) -> None:
    _, out, _ = ran(job, Range("task", 1e-6, 1.0, 50), output="json")
    found = json.loads(out)
    assert found["asked"] == ["--stage", "task", "--low", "1e-06", "--high", "1.0", "--steps", "50", "--run", str(job.parent / "run")]
    assert found["picture"].endswith("lr-range/lr-range.svg")


def test_another_manifest_is_tested_in_the_same_folder(job: Path) -> None:
    assert ran(job, Range())[0] == 0
    job.write_text(GOOD.replace("  stages:\n", "  seed: 7\n  stages:\n"))
    assert ran(job, Range())[0] == 0


def test_a_failure_is_told_as_a_runs(job: Path) -> None:
    code, out, err = ran(job, Range(), mode="bad-data")
    assert (code, out) == (11, "")
    assert "file://a.jsonl line 3: no JSON" in err


def test_a_test_that_fails_leaves_no_curve_of_one_before_it(job: Path) -> None:
    assert ran(job, Range())[0] == 0
    folder = job.parent / "run" / "lr-range"
    (folder / "lr-range.svg").touch()
    assert ran(job, Range(), mode="bad-data")[0] == 11
    assert not list(folder.glob("lr-range.*"))


@pytest.mark.parametrize("before", [False, True], ids=["the first test", "after another one"])
def test_told_to_stop_while_it_prepares_it_ends_before_it_tests(job: Path, before: bool) -> None:
    if before:
        assert ran(job, Range())[0] == 0
    code, out, err = ran(job, Range(), mode="stopped-in-prepare")
    assert (code, out) == (75, "")
    assert "Stopped: before the next part began" in err


@pytest.mark.parametrize("mode", ["saves-on-sigterm", "hangs-after-sigterm"])
def test_on_ctrl_c_it_says_that_nothing_is_kept_and_how_to_test_again(job: Path, mode: str) -> None:
    spaced = job.rename(job.with_name("my job.yaml"))
    _, out, err = ran(spaced, Range("task", 1e-6, None, 50), mode=mode)
    words = "--lr-range --lr-stage task --lr-from 1e-06 --lr-steps 50"
    again = f"finetune run '{spaced}' --run-folder {job.parent / 'run'} {words}"
    assert not out
    assert f"stopping: the test keeps nothing; start it again with `{again}`" in err
    assert "saves first" not in err
    assert "last checkpoint is" not in err
    if mode == "saves-on-sigterm":
        assert f"Start it again with: {again}" in err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param(Range(stage="tsk"), "no such stage, but domain, task", id="no such stage"),
        pytest.param(Range(low=1.0, high=0.1), "not below", id="falling rates"),
    ],
)
def test_what_can_not_be_tested_is_refused_before_anything_is_started(job: Path, asked: Range, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        ran(job, asked)
    assert not (job.parent / "run").exists()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param({"rates": []}, "no number after the first update", id="lost at once"),
        pytest.param({"steepest": None, "diverged": 0.1}, "did not fall. At 0.1 it diverged", id="never fell"),
        pytest.param({"diverged": None}, "Suggested", id="never diverged"),
    ],
)
def test_every_end_has_its_words(found: dict[str, Any], said: str) -> None:
    test = {"stage": "domain", "rates": [1e-5, 1.0], "steepest": 1e-3, "safe": 1e-2, "diverged": 1.0, "declared": 1e-4}
    assert said in " ".join(words(test | found))
