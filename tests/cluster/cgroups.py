"""Cgroups that hold a node's programs and pods: by them every process of the node is found, whoever started it. For both versions of cgroups."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.errors import ClusterError

ROOT = Path("/sys/fs/cgroup")
KILL_SECONDS = 20


def make(name: str) -> None:
    """`/NAME` in every hierarchy: a kubelet refuses a cgroupRoot that one of them lacks."""
    for hierarchy in hierarchies():
        (hierarchy / name).mkdir(parents=True, exist_ok=True)
    if _unified():
        for parent in reversed((ROOT / name).relative_to(ROOT).parents):
            _delegate(ROOT / parent)


def _delegate(folder: Path) -> None:
    """Give the cgroups below this one every controller that it has: in version 2 they have none otherwise, and a kubelet refuses that."""
    controllers = (folder / "cgroup.controllers").read_text().split()
    try:
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in controllers))
    except OSError as error:
        raise ClusterError(
            f"{folder} gives its controllers to no cgroup below it ({error.strerror}): is this a container that shares its cgroup?"
        ) from error


def joining(name: str) -> list[str]:
    """The beginning of a command line: the program that follows runs in this cgroup, and so does whatever it starts."""
    return ["/bin/sh", "-c", f'echo $$ > {_counted() / name}/cgroup.procs && exec "$@"', "sh"]


def kill(name: str) -> None:
    """SIGKILL every process below `/NAME`, and remove it. Nothing where it is not there."""
    deadline = time.monotonic() + KILL_SECONDS
    while pids := set(_pids(_counted() / name)):
        if time.monotonic() > deadline:
            raise ClusterError(f"the processes {sorted(pids)} of {name} survive SIGKILL: they wait in the kernel, perhaps for a dead mount")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / name, topdown=False):
            _remove(Path(folder), deadline)


def hierarchies() -> list[Path]:
    return [ROOT] if _unified() else sorted(path for path in ROOT.iterdir() if path.is_dir())


def _unified() -> bool:
    """Whether this machine has version 2 alone."""
    return (ROOT / "cgroup.controllers").exists()


def _counted() -> Path:
    """The hierarchy in which processes are looked up."""
    return ROOT if _unified() else ROOT / "pids"


def _pids(folder: Path) -> Iterator[int]:
    for place, _, files in os.walk(folder):
        if "cgroup.procs" in files:
            with contextlib.suppress(FileNotFoundError, OSError):  # a pod's cgroup goes while we look
                yield from map(int, (Path(place) / "cgroup.procs").read_text().split())


def _remove(folder: Path, deadline: float) -> None:
    """The kernel needs a moment after the last process."""
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
