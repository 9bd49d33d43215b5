"""`finetune run` around a process that behaves, misbehaves, or is told to stop."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune_api.wire import RunResult
from finetune_cli.errors import CommandError
from finetune_cli.manifests import check_text
from finetune_cli.request import RunRequest, pairs
from finetune_cli.run import run
from finetune_cli.run_folder import finished
from finetune_cli.summary import ending, shortened
from finetune_cli.supervisor import Stops
from tests.unit.cli.manifests import BAD, GOOD, renamed

STAND_IN = Path(__file__).with_name("stand_in_trainer.py")


@dataclass
class Ran:
    code: int
    out: str
    err: str
    folder: Path


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(GOOD)
    return path


def ran(job: Path, mode: str, *, output: str = "text", quiet: bool = False, threads: int | None = 1) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    folder = job.parent / "run"
    request = RunRequest(manifest=str(job), run_folder=folder, threads=threads, quiet=quiet, output=output)
    code = run(request, stdin=io.BytesIO(), stdout=out, stderr=err, trainer_command=(sys.executable, str(STAND_IN), mode))
    return Ran(code, out.getvalue(), err.getvalue(), folder)


def test_a_run_ends_with_the_evaluation_samples_and_artifacts(job: Path) -> None:
    done = ran(job, "succeeds")
    assert done.code == 0
    for part in ("perplexity", "after domain", "after task", "5.500", "4.000", "3.900–4.100", "passed"):
        assert part in done.out
    for part in ("Define: emu", "what?", "a large bird", "a bird"):
        assert part in done.out
    assert "birds succeeded in " in done.out
    assert "adapter:" in done.out
    assert "preparing data" in done.err
    assert "training domain (stage 1 of 2)" in done.err
    assert "checkpoint 40 saved" in done.err


# (text, at most 10 characters of its start, and of its end)
CUTS = [
    ("short", "short", "short"),
    ("a  b\nc", "a b c", "a b c"),
    ("0123456789", "0123456789", "0123456789"),
    ("0123456789x", "012345678…", "…23456789x"),
]


@pytest.mark.parametrize(("text", "start", "end"), CUTS)
def test_long_texts_are_cut_where_they_say_least(text: str, start: str, end: str) -> None:
    assert (shortened(text, 10), ending(text, 10)) == (start, end)


def test_each_process_is_told_its_segment_and_has_a_log(job: Path) -> None:
    folder = ran(job, "succeeds").folder
    configs = {path.name: json.loads(path.read_text()) for path in (folder / "config").iterdir()}
    assert sorted(configs) == ["0-prepare.json", "1-train.json"]
    config = configs["1-train.json"]
    assert config["segment"] == {"index": 1, "kind": "train", "stages": ["domain", "task"], "last": True}
    assert (config["runFolder"], config["baseFolder"], config["threads"]) == (str(folder), str(job.parent), 1)
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["001-prepare.log", "002-train.log"]


def test_json_is_all_that_standard_output_gets(job: Path) -> None:
    done = ran(job, "succeeds", output="json")
    document = json.loads(done.out)
    assert (document["outcome"], document["exitCode"], document["runFolder"]) == ("Succeeded", 0, str(done.folder))
    assert document["evaluation"][0]["stages"][1]["value"] == 3.0


def test_quiet_shows_the_result_only(job: Path) -> None:
    done = ran(job, "succeeds", quiet=True)
    assert done.err == ""
    assert "birds succeeded" in done.out


# (mode, exit code, words that the user reads)
ENDINGS = [
    ("garbage", 0, ["still here", "birds succeeded"]),
    ("closes-pipe", 0, ["birds succeeded"]),
    (
        "bad-data",
        11,
        ["DataInvalid in stage task (exit code 11)", "file://a.jsonl line 3: no JSON", "→ Correct the rows.", "001-prepare.log"],
    ),
    ("misses-gate", 22, ["FAILED", "3.900–4.100", "a large bird", "GateFailed in stage task (exit code 22)", "→ Train more."]),
    ("crashes", 1, ["exit code 1", "The end of the log:", "| RuntimeError: boom", "fault of the trainer"]),
    ("cannot-write", 30, ["is full, or can't be written", "→ Free space in the run folder", "| StorageFull no space is left"]),
    ("ends-without-result", 1, ["ended without a result", "001-prepare.log"]),
    ("killed", 137, ["was killed (SIGKILL, exit code 137)", "want of memory", "goes on from the last checkpoint"]),
    ("segfaults", 139, ["died of SIGSEGV", "| about to fall over"]),
    ("saves-on-sigterm", 75, ["the trainer saves first", "Stopped: saved at step 4", "Go on with: finetune run"]),
    ("dies-of-sigterm", 75, ["Stopped: before there was anything to save", "Go on with: finetune run"]),
    ("hangs-after-sigterm", 137, ["killed on a second Ctrl-C", "goes on from the last checkpoint"]),
    ("stopped-in-prepare", 75, ["Stopped: before the next part began", "Go on with: finetune run"]),
]


@pytest.mark.parametrize(("mode", "code", "words"), ENDINGS, ids=[case[0] for case in ENDINGS])
def test_however_the_trainer_ends_it_is_told_and_the_exit_code_is_its_own(job: Path, mode: str, code: int, words: list[str]) -> None:
    done = ran(job, mode)
    assert done.code == code
    said = done.out + done.err
    for part in words:
        assert part in said
    assert "Traceback" not in said or mode == "crashes"


def test_a_failure_is_json_too(job: Path) -> None:
    done = ran(job, "bad-data", output="json")
    document = json.loads(done.out)
    assert (document["reason"], document["exitCode"], document["stage"]) == ("DataInvalid", 11, "task")
    assert document["log"].endswith("001-prepare.log")


def test_a_child_that_outlives_the_trainer_does_not_hold_the_command(job: Path) -> None:
    done = ran(job, "leaves-child")
    for kind in ("prepare", "train"):
        os.kill(int((done.folder / f"child-{kind}").read_text()), signal.SIGKILL)
    assert done.code == 0


def test_handlers_are_put_back(job: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    ran(job, "saves-on-sigterm")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_second_run_goes_on_where_the_first_was_stopped(job: Path) -> None:
    assert ran(job, "saves-on-sigterm").code == 75
    assert ran(job, "succeeds", threads=None).code == 0


def test_a_resumed_run_keeps_its_number_of_threads(job: Path) -> None:
    folder = ran(job, "saves-on-sigterm", threads=1).folder
    ran(job, "succeeds", threads=None)
    assert json.loads((folder / "config" / "1-train.json").read_text())["threads"] == 1


def test_a_finished_run_shows_its_result_and_starts_nothing(job: Path) -> None:
    ran(job, "succeeds")
    again = ran(job, "killed")
    assert again.code == 0
    for part in (
        "birds has finished already; nothing was started",
        "To start anew, choose another --run-folder or delete",
        "perplexity",
        "adapter:",
    ):
        assert part in again.out


# (outcome, phases of the two stages, whether the job is done)
RESULTS = [
    ("Succeeded", ["Succeeded", "Succeeded"], True),
    ("Succeeded", ["Succeeded", "Pending"], False),  # the first of two segments
    ("Succeeded", [], False),  # prepare
    ("Failed", ["Succeeded", "Succeeded"], False),  # published nothing
]


@pytest.mark.parametrize(("outcome", "phases", "done"), RESULTS)
def test_a_job_is_done_when_its_last_stage_is(outcome: str, phases: list[str], done: bool) -> None:
    stages = [{"status": {"name": name, "phase": phase}, "steps": 1} for name, phase in zip(["domain", "task"], phases, strict=False)]
    result = RunResult.model_validate({"outcome": outcome, "exitCode": 0, "stages": stages})
    (job,) = check_text("job.yaml", GOOD).jobs
    assert finished(result, job) is done
    assert finished(None, job) is False


def test_a_prepared_run_is_not_a_finished_one(job: Path) -> None:
    ran(job, "stopped-in-prepare")
    assert ran(job, "bad-data").code == 11


class Gone(io.StringIO):
    """A terminal that was closed, or a pipe whose reader went away."""

    def __init__(self, *, terminal: bool, error: OSError) -> None:
        super().__init__()
        self._terminal, self._error = terminal, error

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), BrokenPipeError()])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_closed_terminal_neither_ends_a_run_nor_changes_its_exit_code(job: Path, terminal: bool, error: OSError) -> None:
    for mode, code in (("saves-on-sigterm", 75), ("succeeds", 0)):
        request = RunRequest(manifest=str(job), run_folder=job.parent / "run", threads=1)
        command = (sys.executable, str(STAND_IN), mode)
        gone = Gone(terminal=terminal, error=error)
        assert run(request, stdin=io.BytesIO(), stdout=gone, stderr=gone, trainer_command=command) == code


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stops().listening() as stops:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert stops.count == 1
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_only_a_cluster_does_is_said(job: Path) -> None:
    job.write_text(GOOD.replace("spec:\n", "spec:\n  runtimeRef: {name: torch-cuda}\n  ttlSecondsAfterFinished: 60\n"))
    assert (
        "spec.runtimeRef, spec.ttlSecondsAfterFinished: for clusters only; this machine runs the job as it is" in ran(job, "succeeds").err
    )


def refused(job: Path, **fields: object) -> CommandError:
    out, err = io.StringIO(), io.StringIO()
    request = RunRequest(manifest=str(job), **{"run_folder": job.parent / "run", **fields})  # type: ignore[arg-type]
    with pytest.raises(CommandError) as caught:
        run(request, stdin=io.BytesIO(), stdout=out, stderr=err, trainer_command=(sys.executable, str(STAND_IN), "killed"))
    caught.value.add_note(err.getvalue())
    return caught.value


def test_an_invalid_manifest_starts_nothing_and_tells_every_problem(job: Path) -> None:
    job.write_text(BAD)
    error = refused(job)
    assert (error.message, error.exit_code) == (f"{job} is not valid: nothing was started", 10)
    assert error.__notes__[0].count(": error: ") == 8
    assert not (job.parent / "run").exists()


def test_two_jobs_in_one_file_are_refused(job: Path) -> None:
    job.write_text(f"{GOOD}---\n{renamed('fish')}")
    assert refused(job).message == f"{job} holds 2 jobs (birds, fish); this command takes one"


def test_the_folder_of_another_manifest_is_refused_and_left_alone(job: Path) -> None:
    folder = ran(job, "saves-on-sigterm").folder
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    job.write_text(GOOD.replace("maxSteps: 10", "maxSteps: 11"))
    error = refused(job)
    assert error.exit_code == 10
    assert error.message == (
        f"{folder}: this folder holds a run of another manifest of job 'birds': spec.stages[0].training.maxSteps was 10 and is now 11"
    )
    assert error.hint == "The run folder holds another manifest's run: choose another folder, or delete this one."
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_a_corrected_manifest_begins_a_folder_anew_in_which_the_first_had_saved_nothing(job: Path) -> None:
    folder = ran(job, "bad-data").folder
    job.write_text(GOOD.replace("maxSteps: 10", "maxSteps: 11"))
    done = ran(job, "succeeds")
    assert (done.code, "it begins anew" in done.err) == (0, True)
    assert json.loads((folder / "run.json").read_text())["spec"]["stages"][0]["training"]["maxSteps"] == 11
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["001-prepare.log", "002-prepare.log", "003-train.log"]


def test_what_was_saved_is_not_forgotten_for_a_corrected_manifest(job: Path) -> None:
    checkpoint = ran(job, "bad-data").folder / "epochs/0001/stages/0-domain/checkpoint-00000020"
    checkpoint.mkdir(parents=True)
    job.write_text(GOOD.replace("maxSteps: 10", "maxSteps: 11"))
    assert "holds a run of another manifest" in refused(job).message
    assert checkpoint.is_dir()


def test_a_folder_whose_record_is_damaged_is_refused_too(job: Path) -> None:
    folder = ran(job, "saves-on-sigterm").folder
    (folder / "run.json").write_text(json.dumps({"configHash": "0"}))
    assert refused(job).message == (
        f"{folder}: this folder holds a run of another manifest; its run.json is damaged and does not say in what it differs"
    )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir()
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump({"pid": 4711, "host": "here", "since": 0}, file)
        file.flush()
        yield


def test_the_folder_of_a_live_run_is_refused(job: Path) -> None:
    with locked(job.parent / "run" / "lock"):
        error = refused(job)
    assert (error.exit_code, error.message) == (
        10,
        f"{job.parent / 'run'}: another live run uses this folder: process 4711 on here, since 1970-01-01 00:00:00 UTC",
    )


def test_a_file_in_the_way_of_the_run_folder_is_a_storage_error(job: Path) -> None:
    (job.parent / "run").write_text("not a folder")
    error = refused(job)
    assert (error.exit_code, "a file stands there" in error.message) == (30, True)


def test_a_folder_that_cannot_be_made_is_a_storage_error(job: Path) -> None:
    error = refused(job, run_folder=Path("/proc/self/run"))
    assert error.exit_code == 30
    assert "Make the run folder writable" in error.hint


PVC = GOOD.replace("file://model", "pvc://models/base").replace("file://test.jsonl", "pvc://data/test.jsonl")
CLAIMS = "  references: {claims: [{name: models, claimName: a}, {name: data, claimName: b}], secrets: [{name: hf, secretName: c}]}\n"


def test_every_claim_and_secret_that_is_missing_is_asked_for_at_once(job: Path) -> None:
    text = PVC.replace('uri: "pvc://models/base"', 'uri: "hf://owner/name", credentials: hf').replace(
        "file://pairs.jsonl", "pvc://models/pairs.jsonl"
    )
    job.write_text(text.replace("spec:\n", f"spec:\n{CLAIMS}"))
    error = refused(job)
    assert error.exit_code == 12
    assert error.hint.startswith("Add --mount data=DIR --mount models=DIR --secret hf=FILE:")


def test_mounts_and_secrets_are_told_to_the_trainer(job: Path) -> None:
    job.write_text(PVC.replace("spec:\n", f"spec:\n{CLAIMS}"))
    mounts = pairs("--mount", [f"models={job.parent}", f"data={job.parent}"])
    request = RunRequest(manifest=str(job), run_folder=job.parent / "run", mounts=mounts, secrets=pairs("--secret", [f"hf={job}"]))
    err = io.StringIO()
    code = run(request, stdin=io.BytesIO(), stdout=io.StringIO(), stderr=err, trainer_command=(sys.executable, str(STAND_IN), "bad-data"))
    assert code == 11
    config = json.loads((job.parent / "run" / "config" / "0-prepare.json").read_text())
    assert config["mounts"] == {"models": str(job.parent), "data": str(job.parent)}
    assert config["secretFiles"] == {"hf": str(job)}


# (option, values, words)
PAIRS = [
    ("--mount", ["models"], "expected NAME=PATH"),
    ("--mount", ["=x"], "expected NAME=PATH"),
    ("--mount", ["models="], "expected NAME=PATH"),
    ("--mount", ["models=/nowhere/at/all"], "is no folder"),
    ("--mount", ["models=/", "models=/tmp"], "is there twice"),
    ("--secret", ["hf=/"], "is no readable file"),
]


@pytest.mark.parametrize(("option", "values", "words"), PAIRS)
def test_a_wrong_option_names_itself(option: str, values: list[str], words: str) -> None:
    with pytest.raises(CommandError) as caught:
        pairs(option, values)
    assert words in caught.value.message
    assert option in caught.value.message
    assert caught.value.exit_code == 10
