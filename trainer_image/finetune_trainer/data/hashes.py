"""SHA-256 of files, remembered by what the file system says of them, so that gigabytes that did not change are not read again.

A hash is believed while size, modification and change time, inode and device are the same, and only if the file was older than two
seconds when it was hashed: within the clock's grain a file can change without its times changing. The change time can't be set by
programs, so copying old times onto new content doesn't deceive it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from finetune_trainer.checkpoint.files import record

GRAIN = 2_000_000_000
"""Nanoseconds: the coarsest clock of a file system in use."""


class FileHashes:
    """Hashes of files, kept in a JSON file; `clock` gives nanoseconds since the epoch."""

    def __init__(self, index: Path, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._index = index
        self._clock = clock
        self._known: dict[str, list[object]] = {}
        if index.is_file():
            try:
                self._known = json.loads(index.read_text(encoding="utf-8"))
            except ValueError:
                # Torn by a crash: everything is hashed again.
                self._known = {}

    def known(self, path: Path) -> str | None:
        """The hash, if the file is as it was when it was taken; nothing is read."""
        entry = self._known.get(str(path.resolve()))
        return str(entry[-1]) if entry is not None and entry[:-1] == _state(path) else None

    def sha256(self, path: Path) -> str:
        """The hash, read from the file where it isn't known."""
        found = self.known(path)
        if found is not None:
            return found
        began, state = self._clock(), _state(path)
        digest = record(path).sha256
        newest = max(int(str(state[1])), int(str(state[2])))
        if newest < began - GRAIN and _state(path) == state:
            self._known[str(path.resolve())] = [*state, digest]
        return digest

    def save(self) -> None:
        """Write the index, whole or not at all."""
        temporary = self._index.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._known), encoding="utf-8")
        temporary.replace(self._index)


def combined(hashes: Iterable[str]) -> str:
    """One SHA-256 over several, in their order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _state(path: Path) -> list[object]:
    status = os.stat(path)  # noqa: PTH116 - one call, and it follows links
    # As strings: JSON readers elsewhere cut integers of 64 bits.
    return [str(value) for value in (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)]
