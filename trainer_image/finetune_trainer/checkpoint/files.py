"""Every operation on files that a save consists of, as a method of one small class.

A save is a sequence of system calls, and what matters is what a reader finds when the sequence stops between any two of them. So
all of them go through `FileLayer.perform`, and a test stops, fails or slows any single one by passing a layer of its own.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from finetune_api.constants import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.pulse import beat

T = TypeVar("T")
Chunk: TypeAlias = bytes | bytearray | memoryview

CHUNK = 4 << 20
"""Bytes per write and per read: large enough that the system calls cost nothing, small enough to stay in a cache while hashed."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENXIO}
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True)
class FileRecord:
    """What a manifest promises of a file."""

    sha256: str
    size: int


class FileLayer:
    """The operations, done at once and in order. Errors of the storage become TrainerErrors that name the path."""

    def perform(self, operation: str, path: Path, action: Callable[[], T]) -> T:
        """Run one system call. Raises TrainerError(StorageFull or StorageUnwritable); any other OSError as it is."""
        try:
            done = action()
        except OSError as error:
            raise storage_error(error, operation, path) from error
        beat()
        return done

    def make_folder(self, path: Path) -> None:
        """Make a folder that must not exist yet (FileExistsError): the exclusive step that fences writers."""
        self.perform("mkdir", path, path.mkdir)

    def make_parents(self, path: Path) -> None:
        """Make a folder and those above it where they are missing, and see to it that their names survive a power cut."""
        if path.is_dir():
            return
        self.make_parents(path.parent)
        self.perform("mkdir", path, lambda: path.mkdir(exist_ok=True))
        self.sync_folder(path.parent)

    def open_new(self, path: Path) -> int:
        """Open a file for writing that must not exist yet."""
        return self.perform("open", path, lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))

    def open_append(self, path: Path) -> int:
        """Open a file whose every write goes to its end, wherever another writer has moved that."""
        return self.perform("open", path, lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666))

    def write(self, descriptor: int, path: Path, data: Chunk) -> None:
        """Write all of `data` (a full disk may take a part of it first)."""
        view = memoryview(data).cast("B")
        while len(view):
            view = view[self.perform("write", path, lambda view=view: os.write(descriptor, view)) :]  # type: ignore[misc]

    def sync(self, descriptor: int, path: Path) -> None:
        self.perform("fsync", path, lambda: os.fsync(descriptor))

    def close(self, descriptor: int, path: Path) -> None:
        self.perform("close", path, lambda: os.close(descriptor))

    def rename(self, source: Path, target: Path) -> None:
        """Give `source` the name `target`: the instant at which a save becomes visible."""
        self.perform("rename", target, lambda: source.rename(target))

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder survive a power cut."""

        def action() -> None:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

        self.perform("fsync_folder", path, action)

    make_link = staticmethod(os.link)

    def link(self, source: Path, target: Path) -> None:
        """Give a finished file a second name; where the file system has no hard links, copy it and fsync the copy."""

        def action() -> bool:
            try:
                self.make_link(source, target)
            except OSError as error:
                if error.errno in NO_LINKS:
                    return False
                raise
            return True

        if not self.perform("link", target, action):
            self.write_file(target, read_chunks(source))

    def unlink(self, path: Path) -> None:
        self.perform("unlink", path, lambda: path.unlink(missing_ok=True))

    def remove_tree(self, path: Path) -> None:
        """Delete a folder. It is renamed out of the readers' sight first, so that half of it is never taken for a checkpoint."""
        if not path.exists():
            return
        doomed = path if path.name.startswith(".") else path.with_name(f".deleted-{path.name}-{os.getpid()}")
        if doomed != path:
            self.rename(path, doomed)
        self.perform("rmtree", doomed, lambda: shutil.rmtree(doomed))

    def write_file(self, path: Path, chunks: Iterable[Chunk]) -> FileRecord:
        """Write a new file, hashing what is written, and fsync it. Returns its SHA-256 and size."""
        digest, size = hashlib.sha256(), 0
        descriptor = self.open_new(path)
        try:
            for chunk in chunks:
                digest.update(chunk)
                self.write(descriptor, path, chunk)
                size += memoryview(chunk).nbytes
            self.sync(descriptor, path)
        finally:
            self.close(descriptor, path)
        return FileRecord(digest.hexdigest(), size)

    def replace_file(self, path: Path, data: bytes) -> None:
        """Put a small file in place of an older one: readers see the old or the new one, never a part."""
        temporary = path.with_name(f".{path.name}-{os.getpid()}")
        self.unlink(temporary)
        self.write_file(temporary, [data])
        self.rename(temporary, path)
        self.sync_folder(path.parent)

    def append_line(self, path: Path, line: bytes) -> None:
        """Append one line with one write, and fsync it."""
        descriptor = self.open_append(path)
        try:
            self.write(descriptor, path, line + b"\n")
            self.sync(descriptor, path)
        finally:
            self.close(descriptor, path)


def storage_error(error: OSError, operation: str, path: Path) -> Exception:
    """The TrainerError for what the storage refused, or the error itself where it means something else."""
    if error.errno in FULL:
        return TrainerError(Reason.STORAGE_FULL, f"no space left: {operation} failed with {os.strerror(error.errno)}", where=str(path))
    if error.errno in UNWRITABLE:
        return TrainerError(
            Reason.STORAGE_UNWRITABLE, f"the storage can't be written: {operation} failed with {os.strerror(error.errno)}", where=str(path)
        )
    return error


def read_chunks(path: Path) -> Iterable[Chunk]:
    """The bytes of a file, `CHUNK` at a time, in one buffer that the next piece overwrites. Raises OSError."""
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            beat()
            yield buffer[:count]


def record(path: Path) -> FileRecord:
    """Hash a file as it lies on disk. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    for chunk in read_chunks(path):
        digest.update(chunk)
        size += len(chunk)
    return FileRecord(digest.hexdigest(), size)
