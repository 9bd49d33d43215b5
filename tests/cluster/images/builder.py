"""buildah with a storage of its own, in the cache: builds an image, and writes it out."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.images.commands import run
from tests.cluster.images.recipes import PACKAGES, RECIPES, ROOT, SUITE, labels

CERTIFICATES = Path("/etc/ssl/certs")
REPOSITORY = "localhost/finetune"
PACKAGE_STAGE = "package"
MANIFEST = "manifest.json"
TEMPORARY = "building-"
"""How the names of folders start that a killed build leaves."""

SLIM = (
    "./var/cache/apt/archives/*",
    "./var/lib/apt/lists/*",
    "./var/log/*",
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/locale/*",
)


class Builder:
    """The caller holds the cache's lock."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._log = cache / "build.log"

    def build(self, name: str) -> None:
        """Build an image; its base is there. Layers whose inputs have not changed are reused."""
        with tempfile.TemporaryDirectory(dir=self._cache, prefix=TEMPORARY) as temporary:
            context = Path(temporary)
            if name == "debian":
                self._bootstrap(context)
            elif RECIPES[name].sources:
                context = ROOT
                # Named, so that pruning leaves the layers of the stage that only hands over its files.
                self._bud(name, context, "--target", PACKAGE_STAGE, tag=f"{name}-{PACKAGE_STAGE}")
            self._bud(name, context, tag=name)

    def export(self, name: str, folder: Path) -> tuple[str, int]:
        """Write the image's manifest, configuration and layers as files named by their hashes; returns the manifest's digest, and the bytes of the layers."""
        # Uncompressed: three gigabytes are sooner written than compressed, and layers that the store holds are not read from here.
        self._buildah("push", "--quiet", "--disable-compression", f"{REPOSITORY}/{name}", f"dir:{folder}", what=f"writing {name}")
        content = (folder / MANIFEST).read_bytes()
        return f"sha256:{hashlib.sha256(content).hexdigest()}", sum(layer["size"] for layer in json.loads(content)["layers"])

    def clean(self) -> None:
        """Remove what was replaced, and what a killed build left: containers, mounts, folders."""
        if (self._cache / "storage").exists():
            self._buildah("rm", "--all", what="removing containers")
            self._buildah("rmi", "--prune", what="removing images that were replaced")
        unmount(self._cache)
        for left in self._cache.glob(f"{TEMPORARY}*"):
            run(["rm", "-rf", "--one-file-system", left], self._log, what="removing a killed build's files")

    def _bootstrap(self, context: Path) -> None:
        root = context / "rootfs"
        command: list[str | Path] = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root]
        run(command, self._log, what=f"installing Debian {SUITE}")
        exclude = [f"--exclude={pattern}" for pattern in (*SLIM, "./dev/*")]
        run(["tar", "-C", root, "--numeric-owner", *exclude, "-cf", context / "rootfs.tar", "."], self._log, what="packing Debian")

    def _bud(self, name: str, context: Path, *options: str, tag: str) -> None:
        recipe = RECIPES[name]
        arguments = {"BASE": f"{REPOSITORY}/{recipe.base}"} if recipe.base else {}
        if recipe.published:
            arguments |= labels(name)
        given = [part for argument, value in arguments.items() for part in ("--build-arg", f"{argument}={value}")]
        # chroot and the host's network: no privileges beyond root's in a container. The certificates are this machine's, whatever it trusts.
        how = ["--isolation", "chroot", "--network", "host", "--layers", "-v", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        where = ["-f", str(ROOT / recipe.dockerfile), "-t", f"{REPOSITORY}/{tag}", str(context)]
        self._buildah("bud", *how, *given, *options, *where, what=f"building {name}")

    def _buildah(self, *arguments: str, what: str) -> str:
        storage: list[str | Path] = ["--root", self._cache / "storage", "--runroot", self._cache / "run", "--storage-driver", "overlay"]
        return run(["buildah", *storage, *arguments], self._log, what=what)


def unmount(folder: Path) -> None:
    """Every mount below the folder, the last one first."""
    for point in reversed(list(mounts(folder))):
        subprocess.run(["umount", "--lazy", point], check=True)


def mounts(folder: Path) -> Iterable[str]:
    """The mount points below the folder, in the order of their mounting."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return (point for point in points if Path(point).is_relative_to(folder))
