"""Which cluster holds which slot of this machine: one symbolic link a slot, made exclusively, in the user's cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.demo_assets import cache_folder
from tests.cluster.errors import ClusterError
from tests.cluster.layout import SLOTS, Layout
from tests.cluster.processes import Identity

STATE = "cluster.json"


@dataclass(frozen=True)
class State:
    """What a cluster's folder says of itself."""

    slot: int
    routed: bool
    owner: Identity | None
    """The process it lives for; None: until `down`."""

    @property
    def abandoned(self) -> bool:
        return self.owner is not None and not self.owner.alive

    def layout(self, folder: Path) -> Layout:
        return Layout(folder, self.slot, self.routed)

    def write(self, folder: Path) -> None:
        (folder / STATE).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> State | None:
        """None where this folder holds no cluster."""
        path = folder / STATE
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        return cls(found["slot"], found["routed"], Identity(**found["owner"]) if found["owner"] else None)


def registry() -> Path:
    return cache_folder() / "clusters"


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Only one process at a time takes slots, or cleans up after others."""
    registry().mkdir(parents=True, exist_ok=True)
    with (registry().parent / "clusters.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def take(folder: Path) -> int:
    """The first slot that no cluster holds and whose ports nobody else uses."""
    for slot in range(SLOTS):
        if not all(map(_free, Layout(folder, slot, routed=False).ports.values())):
            continue
        with contextlib.suppress(FileExistsError):
            (registry() / str(slot)).symlink_to(folder)
            return slot
    raise ClusterError(f"{SLOTS} clusters hold every slot of this machine. See: python -m tests.cluster status; then take some down.")


def free(slot: int) -> None:
    (registry() / str(slot)).unlink(missing_ok=True)


def held() -> list[tuple[int, Path]]:
    """Each slot that is held, and the folder of its cluster (which may be gone)."""
    found = []
    for link in registry().glob("*"):
        with contextlib.suppress(FileNotFoundError):  # freed in the meantime
            found.append((int(link.name), link.readlink()))
    return sorted(found)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
