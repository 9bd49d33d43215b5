"""The images that pods of a test cluster run, built here without a registry: `python -m tests.cluster.images build | list`.

    images = ensure_images()
    images.trainer.reference                 # localhost/finetune-trainer@sha256:…: what a pod names
    images.seed(containerd_root)             # before a node's containerd starts: it then holds the images

Everything lies in one folder of the user's cache, behind a lock. An image is built anew when something that goes into it has changed; its
layers are reused, and a change of this project's sources alone costs seconds.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.demo_assets import cache_folder
from tests.cluster.errors import MissingPart
from tests.cluster.images import commands, recipes, store
from tests.cluster.images.builder import TEMPORARY, Builder
from tests.cluster.images.recipes import RECIPES
from tests.cluster.images.store import Store

__all__ = ["Image", "Images", "ensure_images"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """One image that pods can run."""

    name: str
    digest: str

    @property
    def reference(self) -> str:
        """By digest, as a runtime has to name it."""
        return f"localhost/finetune-{self.name}@{self.digest}"


@dataclass(frozen=True)
class Images:
    """The images of this checkout, built and unpacked."""

    trainer: Image
    operator: Image
    cache: Path

    def configuration(self, image: Image) -> dict[str, Any]:
        """What an image says of itself: user, command, labels."""
        blobs = self.cache / "containerd/io.containerd.content.v1.content/blobs"
        manifest = json.loads((blobs / image.digest.replace(":", "/")).read_bytes())
        found: dict[str, Any] = json.loads((blobs / manifest["config"]["digest"].replace(":", "/")).read_bytes())["config"]
        return found

    def seed(self, root: Path) -> None:
        """Fill the containerd root of a node that has never started (overlayfs snapshotter, same file system or it is a copy)."""
        with locked(self.cache):
            store.seed(self.cache / "containerd", root, self.cache / "build.log")


def ensure_images(cache: Path | None = None, *, say: Say = print) -> Images:
    """Build what is missing or older than its sources. Raises MissingPart and ClusterError."""
    cache = cache or cache_folder() / "images"
    keys = recipes.keys()
    with locked(cache):
        if stale := [name for name in RECIPES if built(cache).get(name, {}).get("key") != keys[name]]:
            _build(cache, stale, keys, say)
        digests = {name: record["digest"] for name, record in built(cache).items() if "digest" in record}
    return Images(trainer=Image("trainer", digests["trainer"]), operator=Image("operator", digests["operator"]), cache=cache)


def built(cache: Path) -> dict[str, dict[str, Any]]:
    """What the cache holds: by name, the key that it was built for, and of a published image the digest and the layers' size."""
    record = cache / "built.json"
    return json.loads(record.read_text()) if record.exists() else {}


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """One builder at a time; others wait."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(cache: Path, stale: list[str], keys: dict[str, str], say: Say) -> None:
    commands.require()
    if os.geteuid():
        raise MissingPart("images can be built only as root: debootstrap and containerd unpack files of every owner")
    (cache / "build.log").unlink(missing_ok=True)
    builder, record = Builder(cache), built(cache)
    builder.clean()
    try:
        with tempfile.TemporaryDirectory(dir=cache, prefix=TEMPORARY) as temporary:
            exported = {}
            for name in stale:
                say(f"building the image {name}" + ("" if name in record else f" (about {RECIPES[name].minutes:g} min on two idle cores)"))
                began = time.monotonic()
                builder.build(name)
                record[name] = {"key": keys[name]}
                if RECIPES[name].published:
                    folder = Path(temporary) / name
                    digest, size = builder.export(name, folder)
                    record[name] |= {"digest": digest, "bytes": size}
                    exported[Image(name, digest).reference] = folder
                say(f"built {name} in {time.monotonic() - began:.0f} s")
            say("unpacking the images for nodes")
            began = time.monotonic()
            references = [Image(name, entry["digest"]).reference for name, entry in record.items() if "digest" in entry]
            Store(cache).keep(references, exported)
            say(f"unpacked in {time.monotonic() - began:.0f} s")
        # Last: a cache that was left half-way is built on, never taken for whole.
        temporary_record = cache / "built.json.new"
        temporary_record.write_text(json.dumps(record, indent=1) + "\n")
        temporary_record.replace(cache / "built.json")
    finally:
        builder.clean()
