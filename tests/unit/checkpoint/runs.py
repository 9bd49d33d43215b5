"""Run folders for the tests of the store, and file layers that die, lose power or fill up at any chosen operation."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from finetune_trainer.checkpoint.asynchronous import AsynchronousStore
from finetune_trainer.checkpoint.epochs import Epoch, open_epoch
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.snapshot import Snapshot
from finetune_trainer.checkpoint.store import CheckpointStore, Committer
from finetune_trainer.run_folder import RunFolder

T = TypeVar("T")
STAGE = "0-domain"


class Dead(BaseException):
    """The process died here: nothing it does afterwards happens."""


class FaultyLayer(FileLayer):
    """A layer that counts its operations, and at number `at` does `fault` instead. `at` None: none."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.operations: list[tuple[str, Path]] = []
        self.dead = False

    def perform(self, operation: str, path: Path, action: Callable[[], T]) -> T:
        if self.dead:
            raise Dead
        number = len(self.operations)
        self.operations.append((operation, path))
        if number == self.at:
            return self.fault(operation, path)
        new = not path.exists()
        result = super().perform(operation, path, action)
        self.done(operation, path, new)
        return result

    def fault(self, operation: str, path: Path) -> Any:
        self.dead = True
        raise Dead

    def done(self, operation: str, path: Path, new: bool) -> None:
        """After an operation; `new`: there was nothing at the path before it."""


class KilledLayer(FaultyLayer):
    """SIGKILL just before an operation, or in it: a write has written a part, a deletion has deleted a part."""

    def write(self, descriptor: int, path: Path, data: Any) -> None:
        if len(self.operations) == self.at and not self.dead:
            os.write(descriptor, memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
        super().write(descriptor, path, data)

    def fault(self, operation: str, path: Path) -> Any:
        if operation == "rmtree":
            (path / "weights.safetensors").unlink(missing_ok=True)
        return super().fault(operation, path)


class PowerCutLayer(FaultyLayer):
    """The power goes: what was not fsynced is gone too (names whose folder was not fsynced, and half of every such file)."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__(at)
        self.unsynced_files: set[Path] = set()
        self.unsynced_names: list[tuple[str, Path, Path]] = []

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)

        def moved(path: Path) -> Path:
            return target / path.relative_to(source) if path.is_relative_to(source) else path

        self.unsynced_files = {moved(path) for path in self.unsynced_files}
        self.unsynced_names = [(kind, moved(path), before) for kind, path, before in self.unsynced_names]
        self.unsynced_names.append(("rename", target, source))

    def done(self, operation: str, path: Path, new: bool) -> None:
        if operation == "write":
            self.unsynced_files.add(path)
        elif operation == "fsync":
            self.unsynced_files.discard(path)
        elif operation in ("mkdir", "open", "link") and new:
            self.unsynced_names.append((operation, path, path))
        elif operation == "fsync_folder":
            self.unsynced_names = [entry for entry in self.unsynced_names if entry[1].parent != path]

    def fault(self, operation: str, path: Path) -> Any:
        for file in self.unsynced_files:
            if file.exists():
                os.truncate(file, file.stat().st_size // 2)
        for kind, target, source in reversed(self.unsynced_names):
            if kind == "rename" and target.exists() and not source.exists():
                target.rename(source)
            elif kind == "mkdir" and target.is_dir():
                shutil.rmtree(target)
            elif kind in ("open", "link"):
                target.unlink(missing_ok=True)
        return super().fault(operation, path)


class LyingLayer(FaultyLayer):
    """One write puts a wrong byte on the disk, and says nothing."""

    def __init__(self, lie: int) -> None:
        super().__init__()
        self.lie = lie
        self.writes = 0

    def write(self, descriptor: int, path: Path, data: Any) -> None:
        if self.writes == self.lie:
            data = bytearray(memoryview(data).cast("B"))
            data[len(data) // 2] ^= 4
        self.writes += 1
        super().write(descriptor, path, data)


class FullLayer(FaultyLayer):
    """The disk is full at one operation, and stays full for writes."""

    def perform(self, operation: str, path: Path, action: Callable[[], T]) -> T:
        full = self.at is not None and len(self.operations) > self.at and operation in ("open", "write", "mkdir", "fsync", "rename", "link")
        return super().perform(operation, path, self._no_space if full else action)

    def fault(self, operation: str, path: Path) -> Any:
        return FileLayer.perform(self, operation, path, self._no_space)

    @staticmethod
    def _no_space() -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def run_in(folder: Path) -> RunFolder:
    return RunFolder(folder / "run")


def begin(run: RunFolder, files: FileLayer | None = None) -> Epoch:
    return open_epoch(run, segment=1, files=files, clock=lambda: 0.0)


def store_of(epoch: Epoch, *, keep: int = 2, asynchronous: bool = False) -> Committer:
    plain = CheckpointStore(epoch, keep=keep)
    return AsynchronousStore(plain) if asynchronous else plain


def snapshot(step: int) -> Snapshot:
    """A small snapshot with every file of a real one; its contents depend on the step alone."""
    generator = torch.Generator().manual_seed(step)
    weights = {"model.a": torch.randn(7, 5, generator=generator), "model.b": torch.randn(3, generator=generator)}
    optimizer = {
        f"{key}|{name}": torch.randn_like(value) * 0 + step for name, value in weights.items() for key in ("exp_avg", "exp_avg_sq")
    }
    return Snapshot(
        {"weights": weights, "optimizer": optimizer, "rng": {"torch": torch.arange(40, dtype=torch.uint8) + step}},
        {"optimizer": {"groups": [step]}, "rng": {"python": {}}, "trainer_state": {"global_step": step}, "progress": {"extra": {}}},
    )
