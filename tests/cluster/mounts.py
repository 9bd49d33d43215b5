"""Mounts below a cluster's folder: those that its nodes share, and those that pods left behind. A folder that holds some must not be removed."""

from __future__ import annotations

import subprocess
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")


def below(folder: Path, table: str) -> list[str]:
    """The mount points in and below this folder, innermost first, of a table like /proc/self/mountinfo."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in table.splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(folder)]


def share(folder: Path) -> None:
    """Make this folder, and bind it onto itself so that what is mounted in it later is seen in every mount table that is a copy of this one."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    subprocess.run(["mount", "--make-shared", str(folder)], check=True)


def unmount_below(folder: Path) -> None:
    if points := below(folder, MOUNTS.read_text()):
        subprocess.run(["umount", "--lazy", "--", *points], check=True)
