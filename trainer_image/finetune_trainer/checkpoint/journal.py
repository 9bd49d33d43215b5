"""journal.jsonl: what happened to a run, a line an event, appended and fsynced. It counts starts, also while the operator is down.

Lines of several processes may lie between each other; each carries its epoch. A torn last line (a power cut) is passed over, and the
next line starts on a line of its own.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from finetune_trainer.checkpoint.files import FileLayer


def this_process() -> str:
    """What tells this process from every other of the run: a host and a pid come again where a container is started a second time."""
    return _drawn(os.getpid())


def process_of(event: Mapping[str, Any]) -> Any:
    """The process that wrote an event; host and pid stand for it in a journal from before processes drew names."""
    return event.get("process") or (event.get("host"), event.get("pid"))


@cache
def _drawn(pid: int) -> str:
    """A fork has another pid, so it draws for itself."""
    return secrets.token_hex(8)


class Event(StrEnum):
    PROCESS = "process"
    """A process began: its command, segment and attempt. Of every command, before it does anything."""
    START = "start"
    """A training process made its epoch, and knows where it goes on."""
    STAGE = "stage"
    COMMIT = "commit"
    EVALUATED = "evaluated"
    HAND_OVER = "handOver"
    SILENCE = "silence"
    """Nothing had advanced for so long that it was told, and then it went on."""
    END = "end"
    """A process ended in a way that it could tell: outcome, reason, exit code."""


class Journal:
    """Appends to and reads a run's journal."""

    def __init__(self, path: Path, files: FileLayer, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._files = files
        self._clock = clock

    def append(self, event: Event, *, epoch: int, **fields: Any) -> None:
        """Add an event. Raises TrainerError(StorageFull, …)."""
        place = {"pid": os.getpid(), "host": socket.gethostname(), "process": this_process()}
        line = {"event": event, "epoch": epoch, "at": self._clock(), **place, **fields}
        new = not self.path.exists()
        torn = b"" if new or self._ends_whole() else b"\n"
        self._files.append_line(self.path, torn + json.dumps(line).encode())
        if new:
            self._files.sync_folder(self.path.parent)

    def read(self) -> list[dict[str, Any]]:
        """Every event that was written whole, in order."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        events = []
        for line in data.split(b"\n"):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                events.append(event)
        return events

    def starts(self, segment: int | None = None) -> int:
        """How many trainer processes began this run (or this segment of it)."""
        return sum(event["event"] == Event.START and segment in (None, event.get("segment")) for event in self.read())

    def _ends_whole(self) -> bool:
        with self.path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
