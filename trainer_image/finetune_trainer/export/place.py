"""Where a published folder goes: written beside its place, verified, then renamed into it, so that nobody ever reads half of one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError

from finetune_api.constants import Reason
from finetune_api.wire import TrainerConfig
from finetune_trainer.checkpoint.files import FileLayer, record, storage_error
from finetune_trainer.data.sources import local_path
from finetune_trainer.errors import TrainerError
from finetune_trainer.run_folder import RunFolder

PROVENANCE: Final = "provenance.json"
WHERE: Final = "spec.output.uri"


@dataclass(frozen=True)
class Place:
    """The folder of a job's artifacts, and how its URI is spelt for others."""

    folder: Path
    uri: str

    def of(self, name: str) -> str:
        """The URI of an artifact."""
        return f"{self.uri.rstrip('/')}/{name}"


def output_place(config: TrainerConfig) -> Place:
    """Where the job publishes: spec.output.uri, else the folder artifacts of the run folder. Raises TrainerError (SourceNotFound, InvalidSpec)."""
    uri = config.spec.output.uri
    if uri is None:
        folder = RunFolder(Path(config.run_folder)).artifacts.resolve()
        return Place(folder, f"{config.pod.run_uri}/{folder.name}" if config.pod else f"file://{folder}")
    path, root, _ = local_path(uri, config=config, where=WHERE)
    path = path.resolve()
    if root is not None and not path.is_relative_to(root.resolve()):
        raise TrainerError(Reason.INVALID_SPEC, f"{path} is a link that leaves the claim ({uri})", where=WHERE)
    return Place(path, f"file://{path}" if uri.startswith("file://") else uri)


def check_place(config: TrainerConfig, names: tuple[str, ...] = ("adapter", "merged")) -> Place:
    """The place, if this job may publish there: it can be written, and nothing of another job is in the way. Nothing is made yet.

    Raises TrainerError (InvalidSpec, StorageUnwritable). Called before training too: hours later would be late.
    """
    place = output_place(config)
    nearest = next(path for path in (place.folder, *place.folder.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise TrainerError(
            Reason.STORAGE_UNWRITABLE,
            f"{nearest} is not a folder that this user may write to",
            where=WHERE,
            hint="Make it a folder that this user may write to (fsGroup on a cluster), or write another spec.output.uri.",
        )
    for name in names:
        folder = place.folder / name
        if folder.exists() and _owner(folder) != config.config_hash:
            raise TrainerError(
                Reason.INVALID_SPEC,
                f"{folder} is there already and was not published by this job, so it is not replaced",
                where=WHERE,
                hint="Write another spec.output.uri, or move what lies there away.",
            )
    return place


@contextmanager
def new_folder(target: Path, files: FileLayer) -> Iterator[Path]:
    """Give a temporary folder to write to; when the block ends well, it is fsynced and takes the place of `target`.

    What a killed process left half-written is removed first: it would lie beside the published model for ever.
    """
    files.make_parents(target.parent)
    temporary = target.with_name(f".writing-{target.name}-{os.getpid()}")
    for left in target.parent.glob(f".writing-{target.name}-*"):
        files.remove_tree(left)
    files.make_folder(temporary)
    try:
        yield temporary
        _sync(temporary, files)
        files.remove_tree(target)
        files.rename(temporary, target)
        files.sync_folder(target.parent)
    finally:
        files.remove_tree(temporary)


def written(path: Path, action: Callable[[], Any]) -> None:
    """Let a library write to `path`, and say it when the storage is full or refuses. Raises TrainerError (StorageFull, StorageUnwritable)."""
    try:
        action()
    except SafetensorError as error:
        if "No space left" in str(error) or "os error 28" in str(error):
            raise TrainerError(Reason.STORAGE_FULL, "no space left while the weights were written", where=str(path)) from error
        raise
    except OSError as error:
        raise storage_error(error, "write", path) from error


def measured(path: Path) -> tuple[str, int]:
    """SHA-256 and size: of a file; of a folder, over the names and hashes of its files."""
    if path.is_file():
        entry = record(path)
        return entry.sha256, entry.size
    return _combined(path, [file for file in path.rglob("*") if file.is_file()])


def weights_digest(folder: Path) -> str:
    """SHA-256 over the names and hashes of the safetensors files: equal for equal weights, whatever job and folder they were made in."""
    return _combined(folder, list(folder.rglob("*.safetensors")))[0]


def _combined(folder: Path, files: Sequence[Path]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for file in sorted(files):
        entry = record(file)
        digest.update(f"{file.relative_to(folder).as_posix()}\0{entry.sha256}\n".encode())
        size += entry.size
    return digest.hexdigest(), size


def _owner(folder: Path) -> str | None:
    """The configHash of the job that published a folder."""
    try:
        document = json.loads((folder / PROVENANCE).read_bytes())
    except (OSError, ValueError):
        return None
    found = document.get("configHash") if isinstance(document, dict) else None
    return found if isinstance(found, str) else None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(folder: Path, files: FileLayer) -> None:
    mode = 0o666 & ~_umask()
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            files.sync_folder(path)
            continue
        path.chmod(mode)  # safetensors leaves its files to their owner alone, and whoever serves the model is another user
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            files.sync(descriptor, path)
        finally:
            os.close(descriptor)
    files.sync_folder(folder)
