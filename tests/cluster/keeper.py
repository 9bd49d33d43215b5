"""The owner's end of the pipe that a cluster's guard reads: the kernel closes it whatever ends the owner, SIGKILL too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.demo_assets import ROOT

RELEASED = b"released"


class Keeper:
    """A guard beside this process, which takes the cluster down when this process is gone."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    def start(cls, folder: Path) -> Keeper:
        command = [sys.executable, "-m", "tests.cluster.guard", str(folder)]
        # A session of its own: a Ctrl-C at the owner's terminal is not for it.
        return cls(subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True))

    def release(self) -> None:
        """Let go: the cluster is no more its affair. May be called again."""
        if self._process.returncode is None:
            self._process.communicate(RELEASED)
