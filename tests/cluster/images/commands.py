"""Running the programs that build and unpack images: they end with this process, and their last words reach the person who waits."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tests.cluster.errors import ClusterError, MissingPart

NEEDED = {
    name: package
    for package, names in {
        "debootstrap": ("debootstrap",),
        "buildah": ("buildah",),
        "containerd": ("containerd", "ctr"),
        "util-linux": ("setpriv",),
    }.items()
    for name in names
}
TAIL = 15


def require() -> None:
    """Raises MissingPart, naming every program that is not there and the Debian packages that bring them."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        packages = " ".join(sorted({NEEDED[name] for name in missing}))
        raise MissingPart(f"images can't be built without {', '.join(missing)}: apt-get install --yes {packages}")


def bound(command: Sequence[str | Path]) -> list[str]:
    """The same command, killed by the kernel when this process dies: nothing goes on writing to a cache that nobody locks."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)]


def run(command: Sequence[str | Path], log: Path, *, what: str, stdin: IO[bytes] | None = None) -> str:
    """Run it, with all its output in the log, and return its standard output. Raises ClusterError with the log's last lines."""
    with log.open("ab") as file:
        done = subprocess.run(bound(command), stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file, check=False)
        file.write(done.stdout)
    if done.returncode:
        last = "\n".join(f"  {line[:240]}" for line in log.read_text(errors="replace").splitlines()[-TAIL:])
        raise ClusterError(f"{what}: {command[0]} ended with exit code {done.returncode}. Its last lines:\n{last}\n  (all of it: {log})")
    return done.stdout.decode()
