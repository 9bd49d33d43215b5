"""A containerd root that holds the images, unpacked: a node's own root starts as hard links of it, in seconds, instead of an import of gigabytes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tests.cluster.errors import ClusterError
from tests.cluster.images.builder import MANIFEST, unmount
from tests.cluster.images.commands import bound, run

NAMESPACE = "k8s.io"  # the one that kubelet's images live in
START_SECONDS = 30


class Store:
    """The caller holds the cache's lock."""

    def __init__(self, cache: Path) -> None:
        self._log = cache / "build.log"
        self.root = cache / "containerd"

    def keep(self, references: Iterable[str], exported: Mapping[str, Path]) -> None:
        """Make it hold these images and no others; those that were built anew are taken from the folders they were written to."""
        with self._containerd() as ctr:
            blobs = set(ctr("content", "list", "--quiet").split())
            with tempfile.TemporaryFile(dir=self.root.parent) as archive:
                write_archive(exported, blobs, archive)
                archive.seek(0)
                ctr("images", "import", "-", stdin=archive)
            if old := set(ctr("images", "list", "--quiet").split()) - set(references):
                ctr("images", "rm", "--sync", *sorted(old))

    @contextlib.contextmanager
    def _containerd(self) -> Iterator[Any]:
        """containerd on this root for a moment; yields a function that calls its client."""
        with tempfile.TemporaryDirectory(prefix="finetune-images-") as temporary:
            state = Path(temporary)
            socket, configuration = state / "containerd.sock", state / "config.toml"
            configuration.write_text(
                f'version = 2\nroot = "{self.root}"\nstate = "{state}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                f'[grpc]\naddress = "{socket}"\n'
            )
            with self._log.open("ab") as log:
                process = subprocess.Popen(bound(["containerd", "--config", configuration]), stdout=log, stderr=log)
            try:
                deadline = time.monotonic() + START_SECONDS
                while not socket.exists():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise ClusterError(f"containerd did not start to unpack the images: {self._log} says why")
                    time.sleep(0.1)

                def ctr(*arguments: str, stdin: IO[bytes] | None = None) -> str:
                    command: list[str | Path] = ["ctr", "--address", socket, "--namespace", NAMESPACE, *arguments]
                    return run(command, self._log, what="unpacking the images", stdin=stdin)

                yield ctr
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()
                unmount(state)


def write_archive(images: Mapping[str, Path], held: set[str], target: IO[bytes]) -> None:
    """An OCI archive of exported images, by the references they get, that leaves out the blobs that containerd holds already."""
    index = []
    with tarfile.open(fileobj=target, mode="w") as archive:

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

        for reference, folder in images.items():
            content = (folder / MANIFEST).read_bytes()
            manifest = json.loads(content)
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            named = {"io.containerd.image.name": reference}
            index.append({"mediaType": manifest["mediaType"], "digest": digest, "size": len(content), "annotations": named})
            add(f"blobs/{digest.replace(':', '/')}", content)
            for part in (manifest["config"], *manifest["layers"]):
                if part["digest"] not in held:
                    archive.add(folder / part["digest"].removeprefix("sha256:"), f"blobs/{part['digest'].replace(':', '/')}")
                    held = held | {part["digest"]}
        add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add("index.json", json.dumps({"schemaVersion": 2, "manifests": index}).encode())


def seed(source: Path, root: Path, log: Path) -> None:
    """Fill a node's containerd root (missing or empty): files are shared as hard links, the databases are copies."""
    root.mkdir(parents=True, exist_ok=True)
    link = [] if source.stat().st_dev != root.stat().st_dev else ["--link"]
    run(["cp", "--archive", *link, f"{source}/.", root], log, what="giving a node its images")
    for database in source.glob("*/*.db"):
        own = root / database.relative_to(source)
        own.unlink()
        shutil.copy2(database, own)
