"""A failure of a run: what is done to its ground beforehand, and what the hint asks for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.failures.base import Failure, Level
from tests.failures.ground import Ground

Change = Callable[[Ground], None]


@dataclass(frozen=True, kw_only=True)
class RunFailure(Failure):
    seed: Change
    mend: Change

    @property
    def level(self) -> Level:
        return Level.RUN


def elsewhere(ground: Ground) -> None:
    ground.run_folder = ground.folder / "another-run"


def stopped_at(ground: Ground, number: signal.Signals) -> None:
    """Send the trainer a signal once its first checkpoint is saved; it has hundreds of steps before it then."""
    ground.edit({"spec.stages[0].training.maxSteps": 300, "spec.stages[0].checkpoint": {"everySteps": 20}})
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if any(ground.run_folder.glob("epochs/*/stages/*/checkpoint-*")):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(_trainer(ground), number)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    ground.stack.callback(thread.join)
    ground.stack.callback(over.set)


def _trainer(ground: Ground) -> int:
    """The process that holds the run folder."""
    return int(json.loads((ground.run_folder / "lock").read_bytes())["pid"])
