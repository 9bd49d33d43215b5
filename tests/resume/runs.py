"""Runs of the real trainer: prepared once, started in forked processes that have the libraries loaded, struck by signals, and digested."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from finetune_api.plan import Runtime, plan, segments
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.stage import Resources
from finetune_api.wire import TrainerConfig
from finetune_trainer.checkpoint.lineage import chain, head, newest_valid
from finetune_trainer.run_folder import RunFolder
from tests.examples.trainer_process import server
from tests.resume.configurations import ARMS, CONFIGURATIONS, manifest

LIMIT = 240.0
"""Seconds after which a run that does not end is a failure."""


@dataclass(frozen=True)
class Prepared:
    """A configuration whose data is prepared, and what its undisturbed run came to."""

    name: str
    config: TrainerConfig
    folder: Path
    """Where runs are made."""
    template: Path
    """A run folder after `prepare`."""

    def fresh(self, name: str) -> TrainerConfig:
        """The config of a new run, with the data prepared."""
        folder = self.folder / name
        shutil.copytree(self.template, folder, symlinks=True)
        return self.config.model_copy(update={"run_folder": str(folder)})

    def apart(self, name: str) -> list[TrainerConfig]:
        """The configs of a new run in which each stage has a process of its own, as where stages ask for different resources."""
        config = self.fresh(name)
        stages = [stage.model_copy(update={"resources": Resources(gpus=index)}) for index, stage in enumerate(config.spec.stages)]
        spec = config.spec.model_copy(update={"stages": stages})
        return [config.model_copy(update={"spec": spec, "segment": segment}) for segment in segments(spec)[1:]]


def prepare(name: str, demo: Path, folder: Path, **checkpoint: Any) -> Prepared:
    """Plan a configuration and run its prepare segment. `checkpoint`: options of all its stages' checkpoints, in the place of its own."""
    document = manifest({**CONFIGURATIONS, **ARMS}[name], str(demo))
    for stage in document["spec"]["stages"]:
        stage["checkpoint"] = {**stage["checkpoint"], **checkpoint}
    job = FineTuneJob.model_validate(document)
    template = folder / "prepared"
    prepares, trains = plan(job, runtime=Runtime(run_folder=str(template), base_folder=str(demo), threads=1)).segments
    template.mkdir()
    code = forked(prepares, "prepare").end().code
    assert code == 0, log_of(template)
    return Prepared(name, trains, folder, template)


@dataclass
class Ended:
    """How a process ended."""

    code: int
    seconds: float
    reports: list[dict[str, Any]]
    """With the seconds at which they came."""
    struck: bool = False

    def trained_for(self) -> float:
        """Seconds until it began to publish."""
        return next(float(report["seconds"]) for report in self.reports if report["activity"] == "publish")


Trigger = Callable[[dict[str, Any] | None, float], bool]
"""Whether to strike now: the newest progress report (None: none came just now), and the seconds since the start."""


class Running:
    """A trainer process and its progress."""

    def __init__(self, config: TrainerConfig, reader: int, pid: int, wait: Callable[[float], int | None]) -> None:
        self._folder = Path(config.run_folder)
        self._reader = reader
        self._pid = pid
        self._wait = wait
        self._began = time.monotonic()
        self._rest = b""

    def end(self, number: int | None = None, when: Trigger = lambda report, seconds: False) -> Ended:
        """Follow the process to its end, and send it signal `number` once `when` says so."""
        struck, reports = False, []
        while True:
            seconds = time.monotonic() - self._began
            if seconds > LIMIT:
                os.kill(self._pid, signal.SIGABRT)  # faulthandler writes where it stands into the log
                self._wait(LIMIT)
                raise AssertionError(f"the trainer did not end within {LIMIT} s; struck: {struck}\n{log_of(self._folder)}")
            fresh, closed = self._read()
            reports += [{**report, "seconds": seconds} for report in fresh]
            if number is not None and not struck and any(when(report, seconds) for report in fresh or [None]):
                os.kill(self._pid, number)
                struck = True
            if closed:
                code = self._wait(LIMIT)
                assert code is not None, "the trainer closed its progress and did not end"
                os.close(self._reader)
                return Ended(code, time.monotonic() - self._began, reports, struck)

    def _read(self) -> tuple[list[dict[str, Any]], bool]:
        """Reports that came within two milliseconds, and whether the other end is closed."""
        if not select.select([self._reader], [], [], 0.002)[0]:
            return [], False
        data = os.read(self._reader, 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines], not data


def forked(config: TrainerConfig, command: str = "train") -> Running:
    """Start a trainer in a process that has the libraries loaded already."""
    reader, writer = os.pipe()
    path = write_config(config, command)
    # A Connection is handed over with the start itself; a bare descriptor would be fetched by the child later, and so never by one killed early.
    progress = Connection(writer, readable=False)
    process = server().Process(target=child, args=(progress, command, path, log_path(config)))
    process.start()
    progress.close()
    assert process.pid is not None

    def wait(seconds: float) -> int | None:
        process.join(seconds)
        return process.exitcode

    return Running(config, reader, process.pid, wait)


def child(progress: Connection, command: str, config: Path, log: Path) -> None:
    """What `python -m finetune_trainer` does, in a forked process."""
    os.environ["FINETUNE_PROGRESS_FD"] = str(progress.fileno())
    with log.open("ab", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    faulthandler.enable(2)
    from finetune_trainer.__main__ import main

    code = main([command, "--config", str(config)])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def cold(config: TrainerConfig) -> Running:
    """Start a trainer as its users do: a new interpreter."""
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "finetune_trainer", "train", "--config", str(write_config(config, "train"))]
    environment = {**os.environ, "FINETUNE_PROGRESS_FD": str(writer), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    with log_path(config).open("ab") as out:
        process = subprocess.Popen(command, env=environment, pass_fds=[writer], stdout=out, stderr=out)
    os.close(writer)
    return Running(config, reader, process.pid, lambda seconds: process.wait(seconds))


def write_config(config: TrainerConfig, command: str) -> Path:
    path = Path(config.run_folder).with_name(f"{Path(config.run_folder).name}-{command}.json")
    path.write_text(config.model_dump_json())
    return path


def log_path(config: TrainerConfig) -> Path:
    return Path(config.run_folder).with_name(f"{Path(config.run_folder).name}.log")


def log_of(folder: Path) -> str:
    """The end of a run's log, for a message."""
    path = folder.with_name(f"{folder.name}.log")
    return path.read_text()[-4000:] if path.exists() else "no log"


def digests(config: TrainerConfig) -> dict[str, str]:
    """What has to be the same: weights and optimizer of each stage's last checkpoint, hand-overs, sample logs (of each arm), what is published."""
    run = RunFolder(Path(config.run_folder))
    every = [(f"{path.name} ", RunFolder(path)) for path in sorted(run.arms.iterdir())] if run.arms.exists() else [("", run)]
    found = {f"{name}{what}": value for name, arm in every for what, value in _digests_of_stages(arm).items()}
    for path in sorted(run.artifacts.rglob("*.safetensors")):
        found[f"published {path.relative_to(run.artifacts)}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _digests_of_stages(run: RunFolder) -> dict[str, str]:
    from finetune_trainer.checkpoint.lineage import candidates
    from finetune_trainer.checkpoint.manifest import Kind
    from finetune_trainer.checkpoint.snapshot import read_tensors
    from finetune_trainer.checkpoint.state import digest

    links = chain(run.epochs, head(run.epochs))
    assert newest_valid(links).rejected == []
    found: dict[str, str] = {}
    for candidate in candidates(links):
        for path in sorted(candidate.path.glob("*.safetensors")):
            what = "hand-over" if candidate.kind is Kind.HANDOVER else "checkpoint"
            key = f"{candidate.stage} {what} {path.stem}"
            # Newest first: of a stage's checkpoints the last one counts. The generators' state is compared too.
            found.setdefault(key, digest(read_tensors(candidate.path, path.stem)))
    for path in sorted((links[0].folder / "stages").glob("*/samples.jsonl")):
        found[f"{path.parent.name} sample log"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names of what is not the same."""
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


KILLED, STOPPED = -signal.SIGKILL, 75
