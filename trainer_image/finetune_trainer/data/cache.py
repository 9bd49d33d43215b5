"""Tokenised parts by key. A part is built beside the others and renamed when it is whole, so that a crash leaves nothing half."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from finetune_trainer.data.rows import META, is_whole

CACHE = "FINETUNE_CACHE"
"""Environment variable: a folder that several runs share for tokenised rows. Without it they lie in the run folder."""
_BUILDING = ".building-"


class PartCache:
    """`own`: the run folder's `prepared`. `shared`: looked in too, and written to where given."""

    def __init__(self, own: Path, shared: Path | None = None) -> None:
        self._own = own
        self._shared = shared

    @classmethod
    def of(cls, own: Path, environment: Mapping[str, str] = os.environ) -> PartCache:
        """As the environment says."""
        return cls(own, Path(environment[CACHE]) if environment.get(CACHE) else None)

    def find(self, key: str) -> Path | None:
        """The folder of a whole part. One that lost bytes is not whole, and is built again."""
        places = [self._own / key, *([] if self._shared is None else [self._shared / key])]
        return next((place for place in places if (place / META).is_file() and is_whole(place)), None)

    @contextmanager
    def building(self, key: str) -> Iterator[Path]:
        """A folder to build a part in; it becomes the part when the block ends and a meta.json is there, and goes otherwise."""
        place = self._shared or self._own
        place.mkdir(parents=True, exist_ok=True)
        temporary = place / f"{_BUILDING}{key}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            if (temporary / META).is_file():
                _sync(temporary)
                _rename(temporary, place / key)
                _sync_folder(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def sweep(self, keep: set[str]) -> None:
        """Remove from the run folder what its prepare.json no longer names, and what a crash left. The shared folder is its owner's."""
        for folder in self._own.iterdir():
            if folder.is_dir() and folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)


def _rename(temporary: Path, place: Path) -> None:
    if place.is_dir() and not ((place / META).is_file() and is_whole(place)):
        shutil.rmtree(place)
    try:
        temporary.rename(place)
    except OSError:
        # Another run that shares the cache was faster; its part is the same.
        if not (place / META).is_file():
            raise


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
