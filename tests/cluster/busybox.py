"""Images of busybox alone, built here: the one that holds a pod's namespaces, and a shell for tests that need no trainer."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError

BUSYBOX = Path("/bin/busybox")


def build(folder: Path, tag: str, entrypoint: Sequence[str]) -> Path:
    """An oci-archive of an image with busybox and its commands in /bin, run as user 65532. The folder is made, and must not be there."""
    commands = folder / "context/bin"
    commands.mkdir(parents=True)
    shutil.copy(BUSYBOX, commands / "busybox")
    for name in _run([str(BUSYBOX), "--list"]).split():
        if name != "busybox":
            (commands / name).symlink_to("busybox")
    file = folder / "context/Dockerfile"
    file.write_text(f"FROM scratch\nCOPY bin /bin\nENV PATH=/bin\nUSER 65532\nENTRYPOINT {json.dumps(list(entrypoint))}\n")
    # A store of its own, with the driver that needs nothing: the user's own images are not touched.
    buildah = ["buildah", "--root", str(folder / "store"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    _run([*buildah, "build", "--format", "oci", "--isolation", "chroot", "--quiet", "--tag", tag, str(folder / "context")])
    archive = folder / "image.tar"
    _run([*buildah, "push", "--quiet", tag, f"oci-archive:{archive}:{tag}"])
    return archive


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-1500:]}")
    return done.stdout
