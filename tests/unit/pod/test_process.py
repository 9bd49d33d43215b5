"""`python -m finetune_trainer` as a pod runs it: what its last message, its journal and its run folder say, whichever way it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import ClusterReason, ExitCode, Reason
from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.status import Phase
from finetune_api.wire import PodConfig, ResultPage, RunResult, TrainerConfig, read_pages
from tests.builders import job, stage, suite
from tests.unit.data.stand_in import COMMIT, Repository, StandIn, serve

RUN_URI = "pvc://runs/team-a/example-1"


class Pod:
    """The containers of a job: its volume, and what each one leaves in its termination message."""

    def __init__(self, folder: Path, model: str, *, steps: int, environment: dict[str, str] | None = None, **retry: int) -> None:
        self.environment = environment or {}
        self.folder, self.run = folder, folder / "volume/team-a/example-1"
        rows = "".join(json.dumps({"text": f"bird {n} is a small bird of the {n}th tree"}) + "\n" for n in range(24))
        (folder / "domain.jsonl").write_text(rows)
        (folder / "words.jsonl").write_text(rows)
        training = {"maxSteps": steps, "perDeviceTrainBatchSize": 2}
        only = stage("domain", training=training, checkpoint={"everySteps": 5})
        spec = {"evaluation": {"suites": [suite("words")]}, "retry": retry}
        found = FineTuneJob.model_validate(job(only, model={"uri": model}, **spec))
        self.segments = plan(found, runtime=Runtime(run_folder=str(self.run), base_folder=str(folder))).segments
        (folder / "volume").mkdir()

    def config(self, command: str, *, attempt: int = 1, **changes: Any) -> TrainerConfig:
        pod = PodConfig(attempt=attempt, run_uri=RUN_URI, image_digest="sha256:" + "1" * 64, **changes)
        return self.segments[0 if command == "prepare" else 1].model_copy(update={"pod": pod, "grace_seconds": 600})

    def local(self) -> RunResult:
        """What an undisturbed `finetune run` of the same job comes to."""
        folder = self.folder / "local"
        for segment in self.segments:
            config = segment.model_copy(update={"run_folder": str(folder)})
            assert self.start(segment.segment.kind, config).wait() == 0, self.stderr()
        return RunResult.model_validate_json((folder / "result.json").read_bytes())

    def start(self, command: str, config: TrainerConfig, *more: str) -> subprocess.Popen[bytes]:
        path = self.folder / "config.json"
        path.write_text(config.model_dump_json(exclude_none=True))
        self.message.unlink(missing_ok=True)
        own = {"OMP_NUM_THREADS": "1", "FINETUNE_TERMINATION_LOG": str(self.message), **self.environment}
        environment = {**{name: value for name, value in os.environ.items() if not name.startswith("HF_")}, **own}
        with (self.folder / "stderr").open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "finetune_trainer", command, "--config", str(path), *more], env=environment, stderr=output
            )

    def container(self, command: str, config: TrainerConfig, *more: str) -> tuple[int, RunResult]:
        code = self.start(command, config, *more).wait()
        return code, self.told()

    @property
    def message(self) -> Path:
        return self.folder / "termination-log"

    def told(self) -> RunResult:
        data = self.message.read_bytes()
        assert len(data) <= 4096
        return RunResult.model_validate_json(data)

    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / "journal.jsonl").read_text().splitlines()]

    def left(self) -> list[str]:
        return sorted(path.name for path in self.run.iterdir())


NewPod = Callable[..., Pod]


@pytest.fixture
def new_pod(tmp_path: Path, tiny_llama: Path) -> NewPod:
    return lambda model=f"file://{tiny_llama}", **options: Pod(tmp_path, model, **options)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Look often: some of what is waited for does not last. The test's own limit ends it."""
    while not condition():
        assert process.poll() is None, "it ended before"
        time.sleep(0.02)


def test_stopped_resumed_published_cleaned_and_told_again(new_pod: NewPod) -> None:
    pod = new_pod(steps=400)
    assert pod.container("prepare", pod.config("prepare"))[0] == 0

    training = pod.start("train", pod.config("train"))
    wait_for(lambda: list(pod.run.glob("epochs/*/stages/0-domain/checkpoint-*")), training)
    training.send_signal(signal.SIGTERM)
    assert training.wait() == ExitCode.STOPPED, pod.stderr()
    stopped = pod.told()
    assert (stopped.outcome, stopped.reason, stopped.stage) == ("Stopped", Reason.STOPPED, "domain")
    (checkpoint,) = [found.status.checkpoint for found in stopped.stages]
    assert checkpoint is not None and checkpoint.uri.startswith(f"{RUN_URI}/epochs/0001/stages/0-domain/checkpoint-")
    assert checkpoint.step == stopped.step

    # Where the runtime has prepare run in the training pod, each pod begins with it: its success is not the job's.
    code, prepared = pod.container("prepare", pod.config("train", attempt=2))
    assert (code, prepared.outcome, [found.status.phase for found in prepared.stages]) == (0, "Succeeded", [Phase.RUNNING])
    assert list(pod.run.glob("epochs/*/stages/0-domain/checkpoint-*")), "what the next process goes on from"

    code, done = pod.container("train", pod.config("train", attempt=2, clean_up=False))
    assert (code, done.outcome, done.truncated) == (0, "Succeeded", False), pod.stderr()
    assert (done.resumed_from_step, done.steps_lost) == (stopped.step, 0)
    kinds = {artifact.kind: artifact for artifact in done.artifacts}
    assert kinds["adapter"].uri == f"{RUN_URI}/artifacts/adapter"
    assert len(kinds["adapter"].weights_sha256 or "") == 64 and kinds["report"].weights_sha256 is None
    assert done.provenance is not None and done.provenance.image_digest == "sha256:" + "1" * 64
    assert [(event["outcome"], event["attempt"]) for event in pod.events() if event["event"] == "end" and event["command"] == "train"] == [
        ("Stopped", 1),
        ("Succeeded", 2),
    ]
    assert [path.name for path in sorted((pod.run / "logs").iterdir())] == [
        "001-prepare.log",
        "002-train.log",
        "003-prepare.log",
        "004-train.log",
    ]
    assert "Stopped after step" in (pod.run / "logs/002-train.log").read_text()

    pages = []
    for number in range(3):
        assert pod.start("report", pod.config("train", clean_up=number == 0), "--page", str(number)).wait() == 0
        pages.append(ResultPage.model_validate_json(pod.message.read_bytes()))
    assert read_pages(pages) == RunResult.model_validate_json((pod.run / "result.json").read_bytes()) == done
    assert pod.left() == ["artifacts", "logs", "result.json", "run.json"]

    code, again = pod.container("train", pod.config("train", attempt=2))
    assert (code, again) == (0, done)
    assert pod.left() == ["artifacts", "logs", "result.json", "run.json"]

    local = {artifact.kind: artifact for artifact in pod.local().artifacts}
    assert local["adapter"].weights_sha256 == kinds["adapter"].weights_sha256


def test_the_last_process_cleans_and_names_no_checkpoint_that_is_gone(new_pod: NewPod) -> None:
    pod = new_pod(steps=2)
    assert pod.container("prepare", pod.config("prepare"))[0] == 0
    code, done = pod.container("train", pod.config("train"))
    assert (code, done.outcome) == (0, "Succeeded"), pod.stderr()
    assert [found.status.checkpoint for found in done.stages] == [None]
    assert pod.left() == ["artifacts", "logs", "result.json", "run.json"]


def test_what_prepare_fetched_is_there_for_the_pod_that_trains(new_pod: NewPod, tiny_llama: Path, tmp_path: Path) -> None:
    """Each container has a home of its own, and only the first has the hub."""
    hub = StandIn(tiny=Repository({path.name: path.read_bytes() for path in tiny_llama.iterdir()}))
    with serve(hub) as endpoint:
        pod = new_pod(model="hf://OWNER/tiny", steps=2, environment={"HF_ENDPOINT": endpoint, "HOME": str(tmp_path / "first")})
        assert pod.container("prepare", pod.config("prepare"))[0] == 0, pod.stderr()
    pod.environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HOME": str(tmp_path / "second")}
    code, done = pod.container("train", pod.config("train"))
    assert (code, done.outcome) == (0, "Succeeded"), pod.stderr()
    assert done.provenance is not None and done.provenance.model_revision == COMMIT
    assert "hub" not in pod.left()


def test_a_disk_that_no_longer_answers_ends_the_process_and_the_next_goes_on(new_pod: NewPod) -> None:
    """The run's journal becomes a pipe that nobody reads: to open it never returns, as with a file server that is gone."""
    pod = new_pod(steps=60)
    assert pod.container("prepare", pod.config("prepare"))[0] == 0
    patient = pod.config("train").model_copy(update={"stalled_after_seconds": 30})
    hanging = pod.start("train", patient)
    wait_for(lambda: list(pod.run.glob("epochs/*/stages/0-domain/checkpoint-*")), hanging)
    journal = pod.run / "journal.jsonl"
    journal.rename(journal.with_suffix(".kept"))
    os.mkfifo(journal)
    assert hanging.wait() == ExitCode.STALLED, pod.stderr()
    told = pod.told()
    assert (told.outcome, told.reason, told.stage) == ("Failed", Reason.STALLED, "domain")
    assert "nothing has advanced for " in told.message and "the main thread stands in " in told.message
    assert "(journal.py:" in told.message, "where it stands, by file and line"
    log = pod.stderr()
    assert "nothing has advanced since" in log and "this is where every thread stands" in log
    assert "thread MainThread:" in log and "checkpoint/journal.py:" in log
    assert any("__main__.py" in line for line in told.log_tail), "the end of the stacks"

    journal.with_suffix(".kept").replace(journal)
    code, done = pod.container("train", pod.config("train", attempt=2, clean_up=False))
    assert (code, done.outcome) == (0, "Succeeded"), pod.stderr()
    assert done.resumed_from_step is not None and done.resumed_from_step >= 5
    weights = {artifact.kind: artifact.weights_sha256 for artifact in done.artifacts}
    assert weights["adapter"] == {artifact.kind: artifact for artifact in pod.local().artifacts}["adapter"].weights_sha256


def test_a_signal_before_anything_is_imported_is_answered(new_pod: NewPod) -> None:
    pod = new_pod(steps=2)
    process = pod.start("train", pod.config("train"))
    wait_for(lambda: (pod.run / "journal.jsonl").exists(), process)  # torch is being imported now
    process.send_signal(signal.SIGTERM)
    assert process.wait() == ExitCode.STOPPED
    assert pod.told().message == "before anything was begun"


def test_too_many_disruptions_end_the_job_without_an_operator(new_pod: NewPod) -> None:
    pod = new_pod(steps=2, maxPreemptions=1)
    for _ in range(2):
        process = pod.start("prepare", pod.config("prepare"))
        wait_for(lambda: (pod.run / "journal.jsonl").exists(), process)
        process.kill()
        process.wait()
        (pod.run / "prepare.json").unlink(missing_ok=True)
    begun = [event for event in pod.events() if event["event"] == "process"]
    for _ in range(3 - len(begun)):  # a process that was killed before it wrote its line has not begun
        code, told = pod.container("prepare", pod.config("prepare"))
    assert (code, told.reason) == (ExitCode.INTERNAL, ClusterReason.TOO_MANY_DISRUPTIONS)
    assert "was disrupted 2 times, and retry.maxPreemptions is 1" in told.message
    assert pod.container("prepare", pod.config("prepare", attempt=2))[0] == ExitCode.INTERNAL, "a new Job does not forgive"


@pytest.mark.parametrize(
    ("break_it", "code", "reason", "says"),
    [
        (lambda pod: (pod.folder / "domain.jsonl").write_text("{"), ExitCode.BAD_DATA, Reason.DATA_INVALID, "is not JSON"),
        (lambda pod: (pod.folder / "domain.jsonl").unlink(), ExitCode.NOT_ACCESSIBLE, Reason.SOURCE_NOT_FOUND, "no file"),
        (lambda pod: (pod.folder / "volume/team-a").write_text(""), ExitCode.INTERNAL, Reason.INTERNAL_ERROR, "NotADirectoryError"),
    ],
    ids=["bad data", "missing data", "a volume in disorder"],
)
def test_a_failure_is_told_with_the_end_of_the_log(
    new_pod: NewPod, break_it: Callable[[Pod], object], code: ExitCode, reason: Reason, says: str
) -> None:
    pod = new_pod(steps=2)
    break_it(pod)
    ended, told = pod.container("prepare", pod.config("prepare"))
    assert (ended, told.reason) == (code, reason), pod.stderr()
    assert says in told.message
    assert sum(len(line.encode()) + 1 for line in told.log_tail) <= 2048
    if reason is Reason.INTERNAL_ERROR:
        assert any("NotADirectoryError" in line for line in told.log_tail)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fly", "--config", "x"], "does not understand its arguments"),
        (["train", "--config", "/nowhere.json"], "the trainer's config cannot be read"),
        (["report", "--config", "x", "--page", "9"], "does not understand its arguments"),
    ],
)
def test_a_trainer_of_another_version_says_so(arguments: list[str], says: str, tmp_path: Path) -> None:
    environment = {**os.environ, "FINETUNE_TERMINATION_LOG": str(tmp_path / "log")}
    done = subprocess.run([sys.executable, "-m", "finetune_trainer", *arguments], env=environment, capture_output=True, check=False)
    told = RunResult.model_validate_json((tmp_path / "log").read_bytes())
    assert (done.returncode, told.exit_code, told.reason) == (10, 10, Reason.INVALID_SPEC)
    assert says in told.message
