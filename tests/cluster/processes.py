"""Programs that run in the background: started in sessions of their own, written down in the cluster's folder, found again by anyone.

A program is known by its process id together with the moment it started, so a number that the kernel gave to another process later is
never signalled. The record outlives the tool that wrote it: `down`, or the next `up`, ends what a killed tool left.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.errors import ClusterError

LAST_LINES = 12
MARK = "FINETUNE_TEST_CLUSTER"
"""In the environment of every program: the cluster's folder. What was started and not yet written down is found by it."""


def started(pid: int) -> int | None:
    """When this process started, in clock ticks since boot; None where it is gone, or only waits for its parent."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold spaces and parentheses: count from the last one.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


@dataclass(frozen=True)
class Identity:
    """One process, never another one that got its number."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        moment = started(pid)
        return None if moment is None else cls(pid, moment)

    @property
    def alive(self) -> bool:
        with contextlib.suppress(ChildProcessError):  # only a child of ours can be left to us to bury
            os.waitpid(self.pid, os.WNOHANG)
        return started(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """To the whole group: these programs lead one of their own. A group that is gone is fine."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


def marked(folder: Path) -> set[Identity]:
    """Every process of this cluster that leads a group: what `Processes` started, by whichever process."""
    mark = f"{MARK}={folder}".encode()
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # it ended, or is somebody else's
            leads = os.getpgid(int(place.name)) == int(place.name)
            if leads and mark in (place / "environ").read_bytes().split(b"\0") and (identity := Identity.of(int(place.name))):
                found.add(identity)
    return found


class Processes:
    """The background programs of one cluster."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records = folder / "processes"
        self._logs = folder / "logs"

    def start(self, name: str, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> Identity:
        """Start it, writing to `logs/NAME.log`; what ran under this name before must be stopped. Adds `env` to this environment."""
        if (running := self.identity(name)) and running.alive:
            raise ClusterError(f"{name} runs already, as process {running.pid}: stop it first")
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        argv = [str(part) for part in command]
        record = self._records / f"{name}.json"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            argv[0],
            argv,
            {**os.environ, **(env or {}), MARK: str(self._folder)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log(name)), flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        identity = Identity.of(pid)
        if identity is None:
            raise ClusterError(f"{name} ended at once.\n{self.tail(name)}")
        record.write_text(json.dumps({"command": argv, "env": dict(env or {}), "pid": identity.pid, "started": identity.started}))
        return identity

    def again(self, name: str) -> Identity:
        """Start what ran under this name before, with the same command."""
        record = self._record(name)
        return self.start(name, record["command"], env=record["env"])

    def stop(self, name: str, *, grace: float = 10) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds. Nothing where it does not run."""
        identity = self.identity(name)
        if identity is None:
            return
        identity.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while identity.alive and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill(name)

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        identity = self.identity(name)
        while identity and identity.alive:
            identity.signal(signal.SIGKILL)
            time.sleep(0.02)

    def kill_all(self) -> None:
        """SIGKILL to every program, and wait until all are gone; those too whose record was lost, or never written."""
        written = {identity for name in self.names() if (identity := self.identity(name))}
        while found := {identity for identity in written | marked(self._folder) if identity.alive}:
            for identity in found:
                identity.signal(signal.SIGKILL)
            time.sleep(0.02)

    def running(self, name: str) -> bool:
        identity = self.identity(name)
        return identity is not None and identity.alive

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._records.glob("*.json"))

    def identity(self, name: str) -> Identity | None:
        record = self._record(name)
        return Identity(record["pid"], record["started"]) if "pid" in record else None

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def tail(self, name: str) -> str:
        """The last lines of its log, indented, for an error message."""
        path = self.log(name)
        lines = path.read_text(errors="replace").splitlines()[-LAST_LINES:] if path.exists() else []
        return "\n".join(f"  {line[:240]}" for line in lines) + f"\n  (all of it: {path})"

    def wait(self, name: str, ready: Callable[[], bool], *, what: str, timeout: float) -> None:
        """Wait until `ready`, or say what its log says: where it ended, and where `timeout` seconds passed."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running(name):
                raise ClusterError(f"{name} ended before {what}. Its last lines:\n{self.tail(name)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{name} runs, but {timeout:.0f} s passed without: {what}. Its last lines:\n{self.tail(name)}")
            time.sleep(0.1)

    def _record(self, name: str) -> dict[str, Any]:
        path = self._records / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}
