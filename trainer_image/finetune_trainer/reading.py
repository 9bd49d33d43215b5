"""`read`: prints a slice of what a job left, for a user who asked for it (finetune_api.reading has the form).

Which files, the operator's config says: the artifacts of the job's status, each with its hash, or the logs. No path comes from a user, no
link is followed, and artifacts that don't have their hash are not printed: the first container of the pod looks, the others wait for it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from finetune_api.constants import Reason
from finetune_api.reading import (
    MAX_FILES,
    MAX_LOG_BYTES,
    MAX_READ_BYTES,
    MIB,
    NAMES,
    SLICE_BYTES,
    FileEntry,
    Reading,
    Slice,
    SliceHead,
    What,
    printed,
    slices_of,
)
from finetune_api.v1alpha1.status import Artifact
from finetune_api.wire import TrainerConfig
from finetune_trainer.errors import TrainerError
from finetune_trainer.export.place import measured, output_place
from finetune_trainer.run_folder import RunFolder

_LOG: Final = re.compile(r"(\d+)-[a-z]+\.log")
CHANGED_HINT: Final = "Somebody changed or removed it on the volume. status.artifacts says where it was and what hash it had."


@dataclass(frozen=True)
class Piece:
    """A file of the stream."""

    name: str
    size: int
    read: Callable[[int, int], bytes]
    """Bytes from an offset, at most so many."""


def tell_slice(config: TrainerConfig, number: int, out: BinaryIO, mask: Callable[[str], str]) -> None:
    """Print a slice. Raises TrainerError: SourceNotFound (it is gone, or is not what was published), InvalidSpec (it is too much)."""
    reading = config.reading
    if reading is None:
        raise TrainerError(Reason.INVALID_SPEC, "the config says nothing of what to read")
    try:
        pieces = logs_of(RunFolder(Path(config.run_folder)), mask) if reading.what is What.LOGS else _artifacts(config, reading, number)
        size = sum(piece.size for piece in pieces)
        data = b"".join(_cut(pieces, number * SLICE_BYTES, SLICE_BYTES))
    except OSError as error:
        raise TrainerError(Reason.SOURCE_NOT_FOUND, f"it can't be read: {error.strerror}", where=str(error.filename or "")) from error
    files = [FileEntry(name=piece.name, bytes=piece.size) for piece in pieces]
    for line in printed(Slice(SliceHead(slice=number, slices=slices_of(size), bytes=len(data), files=files), data)):
        out.write(line.encode() + b"\n")
    out.flush()


def _cut(pieces: Sequence[Piece], start: int, length: int) -> Iterator[bytes]:
    """So many bytes of the stream."""
    for piece in pieces:
        if start < piece.size and length > 0:
            data = piece.read(start, min(length, piece.size - start))
            length -= len(data)
            yield data
        start = max(0, start - piece.size)


def _artifacts(config: TrainerConfig, reading: Reading, number: int) -> list[Piece]:
    """The files of the artifacts; the pod's first container compares their hashes."""
    size = sum(artifact.bytes for artifact in reading.artifacts)
    if size > MAX_READ_BYTES:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"{reading.what.value} has {size // MIB:,} MiB, and at most {MAX_READ_BYTES // MIB:,} are read through logs",
            hint=f"Mount the claim in a pod of yours: it lies at {reading.artifacts[0].uri}",
        )
    place = output_place(config).folder
    if config.spec.output.uri is None and not place.is_relative_to(Path(config.run_folder).resolve()):
        raise TrainerError(Reason.SOURCE_NOT_FOUND, "the folder of the artifacts is a link that leaves the run folder", where=str(place))
    pieces: list[Piece] = []
    for artifact in reading.artifacts:
        path = place / NAMES[artifact.kind]
        files = _files_of(path)
        if number == reading.first:
            _compare(path, artifact)
        pieces += [Piece(name, path_.stat().st_size, _reader(path_)) for name, path_ in files]
    if len(pieces) > MAX_FILES:
        raise TrainerError(Reason.INVALID_SPEC, f"{reading.what.value} has {len(pieces)} files, at most {MAX_FILES} are read")
    return pieces


def _files_of(path: Path) -> list[tuple[str, Path]]:
    """A file by its name, or a folder's files by their names in it, in the order in which they are hashed."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError as error:
        raise TrainerError(Reason.SOURCE_NOT_FOUND, "it is not there any more", where=str(path), hint=CHANGED_HINT) from error
    if stat.S_ISREG(mode):
        return [(path.name, path)]
    found = sorted(path.rglob("*")) if stat.S_ISDIR(mode) else [path]
    for one in found:
        kind = one.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise TrainerError(
                Reason.SOURCE_NOT_FOUND, "it is no plain file, and links are not followed", where=str(one), hint=CHANGED_HINT
            )
    return [(one.relative_to(path).as_posix(), one) for one in found if not one.is_dir()]


def _compare(path: Path, artifact: Artifact) -> None:
    digest, size = measured(path)
    if (digest, size) != (artifact.sha256, artifact.bytes):
        raise TrainerError(
            Reason.SOURCE_NOT_FOUND,
            f"it is not the {artifact.kind} that was published: it has {size:,} bytes with the sha256 {digest}, "
            f"and the status says {artifact.bytes:,} with {artifact.sha256}",
            where=str(path),
            hint=CHANGED_HINT,
        )


def _reader(path: Path) -> Callable[[int, int], bytes]:
    def read(start: int, length: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            file.seek(start)
            return file.read(length)

    return read


def logs_of(run: RunFolder, mask: Callable[[str], str], most: int = MAX_LOG_BYTES) -> list[Piece]:
    """The logs of all processes, the newest first, with secrets masked once more; of more than `most` bytes the oldest are left out.

    Raises TrainerError (SourceNotFound) where there is none.
    """
    named: list[tuple[int, Path]] = []
    if run.logs.is_dir() and not run.logs.is_symlink() and not run.root.is_symlink():
        named = [(int(found[1]), path) for path in run.logs.iterdir() if (found := _LOG.fullmatch(path.name))]
    plain = [path for _, path in sorted(named, reverse=True) if stat.S_ISREG(path.lstat().st_mode)]
    if not plain:
        raise TrainerError(
            Reason.SOURCE_NOT_FOUND,
            "the run folder has no logs",
            where=str(run.logs),
            hint="Somebody emptied the volume, or the job ended before its trainer wrote one: finetune describe says how it ended.",
        )
    pieces: list[Piece] = []
    for path in plain[:MAX_FILES]:
        whole = path.lstat().st_size <= most
        data = mask(_tail(path, most).decode("utf-8", "replace")).encode()[-most:]
        pieces.append(Piece(path.name, len(data), lambda start, length, data=data: data[start : start + length]))  # type: ignore[misc]
        most -= len(data)
        if not whole or most <= 0:
            break
    return pieces


def _tail(path: Path, most: int) -> bytes:
    """The end of a file; where something is cut off, from a line's beginning on."""
    size = path.lstat().st_size
    data = _reader(path)(max(0, size - most), most)
    return data if size <= most else data.partition(b"\n")[2]
