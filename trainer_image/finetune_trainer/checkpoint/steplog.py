"""Logs with a line a step (samples consumed, loss curve) that are cut to the committed step when a run goes on.

A line is written where its batch is consumed, with one unbuffered write, so a killed process loses none that it wrote. The new epoch
gets a copy of what was committed: the copy and the lines after it are the same bytes as those of a run that was never stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_trainer.checkpoint.files import FileLayer


class StepLog:
    """Appends `{"step": n, …}` lines to a file; `step` is the optimizer step (from 1) that the line belongs to."""

    def __init__(self, path: Path, files: FileLayer | None = None) -> None:
        self.path = path
        self._files = files or FileLayer()
        self._files.make_parents(path.parent)
        self._descriptor = self._files.open_append(path)

    def append(self, step: int, **fields: Any) -> None:
        """Write a line. Raises TrainerError(StorageFull, …)."""
        line = json.dumps({"step": step, **fields}, separators=(",", ":")) + "\n"
        self._files.write(self._descriptor, self.path, line.encode())

    def sync(self) -> None:
        """Make the lines survive a power cut; to be called before the step is committed."""
        self._files.sync(self._descriptor, self.path)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Step and bytes of each whole line; a torn last line, or a log that isn't there, is passed over."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                step = int(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError):
                return
            yield step, line


def last_step(path: Path) -> int:
    """The last step that the log knows of; 0 if none."""
    return max((step for step, _ in lines(path)), default=0)


def carry_over(source: Path, target: Path, *, step: int, files: FileLayer) -> None:
    """Copy a log up to and including `step` into a new epoch."""
    files.make_parents(target.parent)
    files.replace_file(target, b"".join(line for number, line in lines(source) if number <= step))
