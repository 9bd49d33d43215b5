"""How a bench ends before its time."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

TERMINATED: Final = 128 + signal.SIGTERM
PATIENCE: Final = 90.0
"""Seconds in which what a bench has started comes to its end: an operator, a cluster, threads that watch."""


def end_in_order() -> None:
    """From now on SIGTERM ends this process as an exit does: what it has started ends before it, where it would stay behind else."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))


def run(command: Sequence[str]) -> int:
    """Run a program to its end, and return its exit code. Where this process is ended meanwhile, the program is told, and waited for."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait(PATIENCE)
            raise
