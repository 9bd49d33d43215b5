"""The end of a cluster: programs, nodes, mounts, network and files, in that order; for one that runs, one that was killed, and half of one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.cluster import cgroups, mounts, network, slots
from tests.cluster.layout import Layout
from tests.cluster.processes import Processes


def take_down(folder: Path, slot: int) -> None:
    """End the cluster of this folder, and remove the folder's contents but its logs. Nothing where it was taken down in the meantime."""
    with slots.locked():
        if (slot, folder) in slots.held():
            _end(folder, slot)


def _end(folder: Path, slot: int) -> None:
    """Nothing is asked of the cluster itself: all of it may be dead."""
    layout = Layout(folder, slot, routed=True)
    state = slots.State.read(folder)
    Processes(folder).kill_all()
    if state is None or state.routed:  # no state: half of a cluster, which may have had nodes
        cgroups.kill(layout.name)
        mounts.unmount_below(folder)
        network.remove(layout)
    if state is not None:  # never the contents of a folder that is no cluster's
        for path in folder.iterdir():
            if path.name != "logs":
                _remove(path)
    slots.free(slot)


def sweep(say: Callable[[str], None]) -> None:
    """Take down every cluster whose owner is gone, and free the slots of folders that hold none. Call it inside `slots.locked`."""
    for slot, folder in slots.held():
        state = slots.State.read(folder)
        if state is None or state.abandoned:
            say(f"cleaning up what was left of a cluster in {folder}")
            _end(folder, slot)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
