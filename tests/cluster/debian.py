"""Programs of Debian's packages that are unpacked, not installed: no root, no service that starts, and nothing on the machine changes."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.demo_assets import cache_folder
from tests.cluster.errors import MissingPart

PROGRAMS: Mapping[str, str] = {"prometheus": "prometheus", "promtool": "prometheus"}
"""A program, and the package that holds it in /usr/bin."""


def resolve(name: str, say: Callable[[str], None] = print) -> Path:
    """Where this program is: on PATH, else in the user's cache, fetched into it first where it is nowhere.

    Raises:
        MissingPart: It can't be fetched from here; says what to do.
    """
    if on_path := shutil.which(name):
        return Path(on_path)
    folder = cache_folder() / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    unpacked = folder / PROGRAMS[name]
    with (folder / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.exists():
            _fetch(PROGRAMS[name], unpacked, say)
    return unpacked / "usr/bin" / name


def _fetch(package: str, target: Path, say: Callable[[str], None]) -> None:
    """The newest version that the machine's package lists know; root fetches the lists first where they are missing or old."""
    say(f"fetching Debian's {package}")
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        place = Path(temporary)
        place.chmod(0o755)
        download = ["apt-get", "download", "-qq", package]
        root = os.geteuid() == 0
        if not _run(download, place, package, optional=root):
            _run(["apt-get", "update", "-qq"], place, package)
            _run(download, place, package)
        (archive,) = place.glob("*.deb")
        _run(["dpkg-deb", "--extract", str(archive), str(place / "root")], place, package)
        (place / "root").rename(target)


def _run(command: list[str], place: Path, package: str, *, optional: bool = False) -> bool:
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MissingPart(f"{package} is neither on PATH nor to be had: this is no Debian ({command[0]} is missing); install it") from error
    if done.returncode and not optional:
        raise MissingPart(f"`{' '.join(command)}` failed, so {package} is missing; put it on PATH\n{done.stderr[-1000:]}")
    return done.returncode == 0
