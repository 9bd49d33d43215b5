"""What the command reads and writes in a run folder. The trainer owns the rest (`finetune_trainer/run_folder.py` has the whole picture)."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from finetune_api.arms import arms
from finetune_api.base import WireModel
from finetune_api.constants import Reason
from finetune_api.refusals import another_run, holder
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob, FineTuneJobSpec
from finetune_api.v1alpha1.status import Phase
from finetune_api.wire import RunResult, TrainerConfig
from finetune_cli.errors import CommandError

_SAVED: Final = (*(f"{top}epochs/*/stages/*/{what}" for top in ("", "arms/*/") for what in ("checkpoint-*", "handover")), "artifacts")
_RECORDS: Final = (
    "arms",
    "arms.json",
    "epochs",
    "evaluation",
    "journal.jsonl",
    "prepare.json",
    "result.json",
    "run.json",
)  # last of all whose it is


class Sample(WireModel):
    """A completion, as the trainer's evaluation wrote it."""

    row: str
    prompt: str
    reference: str = ""
    completion: str


class PointSamples(WireModel):
    """The completions of one point: the base model, or after a stage."""

    point: str
    samples: list[Sample] = []


@dataclass(frozen=True)
class RunFolder:
    root: Path

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def report(self) -> Path:
        return self.root / "artifacts" / "report.html"

    def config(self, config: TrainerConfig) -> Path:
        return self.root / "config" / f"{config.segment.index}-{config.segment.kind}.json"

    def next_log(self, kind: str) -> Path:
        """A log a process: `logs/003-train.log`."""
        folder = self.root / "logs"
        numbers = [int(path.name.split("-")[0]) for path in folder.glob("[0-9]*-*.log") if path.name.split("-")[0].isdigit()]
        return folder / f"{max(numbers, default=0) + 1:03}-{kind}.log"

    def create(self) -> None:
        """Make the folder and those in it that the command writes. A folder that can't be written is StorageUnwritable."""
        for folder in (self.root, self.root / "config", self.root / "logs"):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise CommandError.of(
                    Reason.STORAGE_UNWRITABLE,
                    f"the run folder {self.root} can't be made: a file stands there",
                    hint="Choose another folder (--run-folder), or move the file away.",
                ) from error
            except OSError as error:
                raise _storage(error, folder) from error
            if not os.access(folder, os.W_OK | os.X_OK):
                raise CommandError.of(Reason.STORAGE_UNWRITABLE, f"the run folder may not be written by this user: {folder}")

    def write_config(self, config: TrainerConfig) -> Path:
        """Write what a process is told; whole or not at all."""
        path = self.config(config)
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(config.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise _storage(error, path) from error
        return path

    def identity(self) -> dict[str, Any]:
        """What run.json says; empty where there is none yet (or none that can be read: the trainer will say so)."""
        try:
            document = json.loads((self.root / "run.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def read_result(self) -> RunResult | None:
        """How the last process ended; None where it left nothing readable."""
        try:
            return RunResult.model_validate_json(self.result.read_bytes())
        except (OSError, ValidationError):
            return None

    def stamp(self) -> tuple[int, int] | None:
        """Changes whenever a process leaves a new result."""
        try:
            status = self.result.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def refuse_if_taken(self, config: TrainerConfig) -> None:
        """Raise before anything is written into a folder of another manifest's run, or of a run that is alive."""
        identity = self.identity()
        recorded = identity.get("configHash")
        if recorded is not None and recorded != config.config_hash and not self.saved_nothing(config):
            raise CommandError.of(Reason.RUN_FOLDER_MISMATCH, f"{self.root}: {_differing(identity, config)}")
        self.refuse_if_busy()

    def refuse_if_busy(self) -> None:
        """Raise where a live run uses this folder."""
        user = self._user()
        if user is not None:
            raise CommandError.of(Reason.RUN_FOLDER_BUSY, f"{self.root}: another live run uses this folder{user}")

    def saved_nothing(self, config: TrainerConfig) -> bool:
        """Whether an earlier manifest of this job failed here before it had saved anything: whoever corrects it loses nothing by beginning anew."""
        result = self.read_result()
        if result is None or result.outcome != "Failed" or self.identity().get("job") != config.job.name:
            return False
        return not any(found for pattern in _SAVED for found in self.root.glob(pattern))

    def begin_anew(self) -> None:
        """Forget a run that has saved nothing; its logs and its prepared rows, which are found by their content, stay."""
        for name in _RECORDS:
            path = self.root / name
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def samples(self, spec: FineTuneJobSpec, result: RunResult) -> tuple[PointSamples | None, PointSamples | None]:
        """The completions of the base, and those after the last stage that has some; of several arms, of the one that is published."""
        every = arms(spec)
        seed = result.seeds.published if result.seeds else every[0].seed
        own = next((arm for arm in every if arm.seed == seed), every[0])
        folder = self.root / "arms" / own.name if len(every) > 1 else self.root
        tuned = [found for index, stage in enumerate(spec.stages) if (found := self._samples(folder, f"{index}-{stage.name}")) is not None]
        return self._samples(self.root, "base"), tuned[-1] if tuned else None

    def _samples(self, folder: Path, point: str) -> PointSamples | None:
        try:
            return PointSamples.model_validate_json((folder / "evaluation" / f"samples-{point}.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def _user(self) -> str | None:
        """The live trainer that holds the folder, None where there is none. It looks again itself: this only tells the user sooner."""
        try:
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return holder(os.pread(descriptor, 4096, 0))
        finally:
            os.close(descriptor)
        return None


def finished(result: RunResult | None, job: FineTuneJob) -> bool:
    """Whether this result is of the whole job: each segment leaves one, but only the last has the last stage done."""
    if result is None or result.outcome != "Succeeded":
        return False
    last = job.spec.stages[-1].name
    return any(stage.status.name == last and stage.status.phase is Phase.SUCCEEDED for stage in result.stages)


def _differing(identity: dict[str, Any], config: TrainerConfig) -> str:
    try:
        return another_run(identity, config.job.name, config.spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    except KeyError:
        return "this folder holds a run of another manifest; its run.json is damaged and does not say in what it differs"


def last_lines(log: Path, count: int) -> list[str]:
    """The end of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []


def _storage(error: OSError, path: Path) -> CommandError:
    import errno

    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = Reason.STORAGE_FULL if full else Reason.STORAGE_UNWRITABLE
    return CommandError.of(reason, f"{path} can't be written: {error.strerror or error}")
