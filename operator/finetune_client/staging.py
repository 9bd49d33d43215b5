"""Files that arrive as one stream of bytes, written so that nobody ever finds half of one: beside their place first, then renamed into it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from finetune_api.reading import MAX_READ_BYTES, FileEntry, Slice, safe_name
from finetune_client.errors import Unreadable, Unwritable

_PART: Final = ".finetune-part-"
DAMAGED_HINT: Final = "Try again. Where it comes again, mount the claim: status.artifacts says where it lies (finetune describe)."


class Staging:
    """A folder in the making. Take the slices in their order, then `commit`."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.root = root
        """Where the files lie until they are whole."""
        self.files: tuple[FileEntry, ...] = ()
        self.digests: dict[str, str] = {}
        """sha256 of each file that is whole, by name."""
        self.slices = 0
        """In all; 0 as long as nothing came."""
        self.taken = 0
        self.received = 0
        """Bytes."""
        self._open: tuple[BinaryIO, hashlib._Hash, int] | None = None

    @property
    def complete(self) -> bool:
        return 0 < self.slices == self.taken

    @property
    def size(self) -> int:
        """Bytes of all files, as the first slice says it."""
        return sum(entry.bytes for entry in self.files)

    def take(self, found: Slice) -> None:
        """Write the next slice. Raises Unreadable for one that does not follow, Unwritable where the disk refuses."""
        head = found.head
        if not self.slices:
            self.slices, self.files = head.slices, _checked(head.files)
        if (head.slice, head.slices, tuple(head.files)) != (self.taken, self.slices, self.files):
            raise Unreadable(f"slice {head.slice} of {head.slices} came where {self.taken} of {self.slices} was due", DAMAGED_HINT)
        try:
            self._write(memoryview(found.data))
        except OSError as error:
            raise Unwritable(f"{error.filename or self.root} can't be written: {error.strerror}") from error
        self.taken += 1
        self.received += len(found.data)
        if self.complete and len(self.digests) != len(self.files):
            raise Unreadable("the last slice came, and a file is not whole", DAMAGED_HINT)

    def commit(self) -> tuple[Path, ...]:
        """Give the files their names. Returns them. Raises Unwritable."""
        try:
            for entry in self.files:
                target = self.folder / entry.name
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.root / entry.name).replace(target)
            for folder in {(self.folder / entry.name).parent for entry in self.files} | {self.folder.parent}:
                _sync(folder)
        except OSError as error:
            raise Unwritable(f"{error.filename or self.folder} can't be written: {error.strerror}") from error
        return tuple(self.folder / entry.name for entry in self.files)

    def close(self) -> None:
        if self._open is not None:
            self._open[0].close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _write(self, data: memoryview) -> None:
        """Spread bytes over the files; empty files are whole as soon as it is their turn."""
        while len(self.digests) < len(self.files):
            entry = self.files[len(self.digests)]
            if self._open is None:
                path = self.root / entry.name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._open = (path.open("xb"), hashlib.sha256(), entry.bytes)
            file, digest, left = self._open
            piece, data = data[:left], data[left:]
            file.write(piece)
            digest.update(piece)
            left -= len(piece)
            self._open = (file, digest, left)
            if left:
                return
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._open, self.digests[entry.name] = None, digest.hexdigest()
        if data:
            raise Unreadable("more came than the files have", DAMAGED_HINT)


@contextmanager
def staging(folder: Path, *, force: bool) -> Iterator[Staging]:
    """Begin a folder. force: also in one that is not empty, where files of the same name are replaced.

    Raises:
        Unwritable: It is there and not empty, it is a file, or nothing can be written there.
    """
    try:
        if folder.is_dir():
            for left in filter(_is_left, folder.glob(f"{_PART}*")):
                shutil.rmtree(left, ignore_errors=True)
            if not force and any(folder.iterdir()):
                raise Unwritable(
                    f"{folder} is not empty", "Name another folder, or let files of the same names be replaced with --force (force=True)."
                )
        elif folder.exists():
            raise Unwritable(f"{folder} is a file", "Name a folder.")
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        root = folder / f"{_PART}{os.getpid()}"
        root.mkdir()
    except OSError as error:
        raise Unwritable(f"{folder} can't be written: {error.strerror}", "Name a folder that you may write to.") from error
    made = Staging(folder, root)
    try:
        yield made
    finally:
        made.close()
        if new and not any(folder.iterdir()):
            folder.rmdir()


def _is_left(root: Path) -> bool:
    """Whether the process that wrote there was killed: another one may be at work beside this one."""
    try:
        os.kill(int(root.name.removeprefix(_PART)), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def _checked(files: list[FileEntry]) -> tuple[FileEntry, ...]:
    """The files that a pod announces. It may run any image: names and sizes are taken for nothing but what they may be."""
    names = [entry.name for entry in files]
    bad = [name for name in names if not safe_name(name)]
    if bad or len(set(names)) != len(names) or sum(entry.bytes for entry in files) > MAX_READ_BYTES:
        raise Unreadable(f"the pod announced what is not taken: {', '.join(map(ascii, bad[:3])) or 'too much, or a name twice'}")
    return tuple(files)


def _sync(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
