"""From a URI of a manifest to files on this machine: `file://`, `pvc://NAME/path`, `hf://…`; a file, a folder or a glob."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from finetune_api.constants import Reason
from finetune_api.v1alpha1.data import DataFormat
from finetune_api.wire import TrainerConfig
from finetune_trainer.data import hub
from finetune_trainer.data.formats import ENDINGS, by_ending
from finetune_trainer.errors import TrainerError

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Located:
    """The files of a source, in a fixed order."""

    uri: str
    files: tuple[Path, ...]
    names: tuple[str, ...]
    """What messages call the files: as short as the manifest's user knows them."""
    format: DataFormat
    revision: str | None = None
    """The commit of an hf:// source."""


def locate(
    uri: str,
    *,
    config: TrainerConfig,
    revision: str | None = None,
    credentials: str | None = None,
    where: str,
    format: DataFormat | None = None,
) -> Located:
    """Find a source's files, fetching them from the hub where needed. `where`: the field of the manifest, for messages.

    Raises TrainerError: SourceNotFound, SourceForbidden, SourceUnreachable, DataEmpty (a folder or glob without a match), InvalidSpec.
    """
    if uri.startswith("hf://"):
        return _locate_hub(uri, config=config, revision=revision, credentials=credentials, where=where, format=format)
    path, root, prefix = local_path(uri, config=config, where=where)
    found = _find(path, uri=uri, where=where, root=root)
    files = _keep(found, base=path, uri=uri, where=where, format=format)
    return Located(uri, files, tuple(prefix(file) for file in files), _format(files, format, uri=uri, where=where))


def local_path(uri: str, *, config: TrainerConfig, where: str) -> tuple[Path, Path | None, Namer]:
    """The path of a `file://` or `pvc://` URI, the folder that it must not leave, and how to name files below it."""
    scheme, rest = uri.split("://", 1)
    if scheme == "file":
        base = Path(config.base_folder)
        return base / rest, None, Namer(base, "")
    name, _, inner = rest.partition("/")
    if name not in config.mounts:
        known = f"mounted are {', '.join(sorted(config.mounts))}" if config.mounts else "nothing is mounted"
        raise TrainerError(
            Reason.SOURCE_NOT_FOUND,
            f"no folder is mounted under the name {name!r} of {uri} ({known}); locally: finetune run --mount {name}=DIR",
            where=where,
        )
    root = Path(config.mounts[name])
    if ".." in PurePosixPath(inner).parts:
        raise TrainerError(Reason.INVALID_SPEC, f"{uri} leaves the claim with '..'; write the path from the claim's root", where=where)
    return root / inner, root, Namer(root, f"pvc://{name}/")


@dataclass(frozen=True)
class Namer:
    """Names files for messages, relative to where the user knows them from."""

    base: Path
    prefix: str

    def __call__(self, file: Path) -> str:
        try:
            return self.prefix + str(file.relative_to(self.base))
        except ValueError:
            return str(file)


def token(credentials: str | None, *, config: TrainerConfig, where: str) -> str | None:
    """The token of a Secret reference, read from its file. Raises TrainerError (SourceForbidden) where there is none."""
    if credentials is None:
        return None
    path = config.secret_files.get(credentials)
    if path is None:
        raise TrainerError(
            Reason.SOURCE_FORBIDDEN,
            f"there is no token for credentials {credentials!r}; locally: finetune run --secret {credentials}=FILE",
            where=where,
        )
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise TrainerError(
            Reason.SOURCE_FORBIDDEN, f"the file with the token for credentials {credentials!r} can't be read", where=where
        ) from None


def repository(uri: str, *, config: TrainerConfig, revision: str | None, credentials: str | None, where: str) -> tuple[hub.Repository, str]:
    """The repository of an `hf://` URI, and the path in it ('' for all of it)."""
    parts = uri.removeprefix("hf://").strip("/").split("/")
    dataset = parts[0] == "datasets"
    parts = parts[1:] if dataset else parts
    if len(parts) < 2 or not all(parts[:2]):
        raise TrainerError(Reason.INVALID_SPEC, f"{uri} is incomplete: write hf://OWNER/NAME or hf://datasets/OWNER/NAME/path", where=where)
    if ".." in parts:
        raise TrainerError(Reason.INVALID_SPEC, f"{uri} leaves the repository with '..'", where=where)
    secret = token(credentials, config=config, where=where)
    return hub.Repository("/".join(parts[:2]), "dataset" if dataset else "model", revision, secret, where), "/".join(parts[2:])


def _locate_hub(
    uri: str, *, config: TrainerConfig, revision: str | None, credentials: str | None, where: str, format: DataFormat | None
) -> Located:
    named, path = repository(uri, config=config, revision=revision, credentials=credentials, where=where)
    if named.kind != "dataset":
        raise TrainerError(Reason.INVALID_SPEC, f"{uri} is a model's URI; data lies under hf://datasets/OWNER/NAME/path", where=where)
    patterns = [path.replace("**", "*"), f"{path}/*"] if path else ["*"]
    snapshot = hub.fetch(named, allow=patterns)
    base = snapshot.folder / path
    try:
        found = _find(base, uri=uri, where=where, root=None)
    except TrainerError as error:
        if error.reason is not Reason.SOURCE_NOT_FOUND:
            raise
        raise TrainerError(
            Reason.SOURCE_NOT_FOUND, f"the repository has no file {path!r} at commit {snapshot.commit}", where=where
        ) from None
    files = _keep(found, base=base, uri=uri, where=where, format=format)
    namer = Namer(snapshot.folder, f"hf://datasets/{named.name}/")
    return Located(uri, files, tuple(namer(file) for file in files), _format(files, format, uri=uri, where=where), snapshot.commit)


def unreadable(path: object, uri: str, *, where: str) -> TrainerError:
    """What lies on a disk and is not this user's to read: a token, the reason's own advice, would not help."""
    hint = f"Make it readable for user {os.getuid()}, who runs this: chmod -R a+rX on the folder, for instance; then start again."
    return TrainerError(Reason.SOURCE_FORBIDDEN, f"{path} may not be read by this user ({uri})", where=where, hint=hint)


def _find(path: Path, *, uri: str, where: str, root: Path | None) -> list[Path]:
    """The files under a path, a folder or a glob, sorted; hidden ones and those that begin with `_` are no data."""
    try:
        if path.is_file():
            found = [path]
        elif path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
        elif _MAGIC.search(str(path)):
            found = _glob(path)
        else:
            raise TrainerError(Reason.SOURCE_NOT_FOUND, f"there is no file or folder {path} ({uri})", where=where)
    except PermissionError as error:
        raise unreadable(error.filename, uri, where=where) from None
    for file in found:
        if not os.access(file, os.R_OK):
            raise unreadable(file, uri, where=where)
        # A link on a claim must not lead to what the claim doesn't hold.
        if root is not None and not file.resolve().is_relative_to(root.resolve()):
            raise TrainerError(Reason.INVALID_SPEC, f"{file} is a link that leaves the claim ({uri})", where=where)
    return found


def _glob(pattern: Path) -> list[Path]:
    fixed = 0
    while not _MAGIC.search(pattern.parts[fixed]):
        fixed += 1
    start = Path(*pattern.parts[:fixed])
    return sorted(file for file in start.glob(str(Path(*pattern.parts[fixed:]))) if file.is_file())


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _keep(found: Iterable[Path], *, base: Path, uri: str, where: str, format: DataFormat | None) -> tuple[Path, ...]:
    """Of a folder: the files of the format, or of any format. A file or a glob means what it says."""
    every = list(found)
    wanted_kinds = {format} if format else set(DataFormat)
    kept = [file for file in every if by_ending(file) in wanted_kinds] if base.is_dir() else every
    if not kept:
        wanted = ", ".join(ENDINGS[format] if format else [ending for endings in ENDINGS.values() for ending in endings])
        files = f"the folder has {len(every)} file(s), none of which ends in" if every else "the folder has no file that ends in"
        what = f"{files} {wanted}" if base.is_dir() else "the glob matches no file"
        raise TrainerError(Reason.DATA_EMPTY, f"{uri} has no data: {what}", where=where)
    return tuple(kept)


def _format(files: tuple[Path, ...], format: DataFormat | None, *, uri: str, where: str) -> DataFormat:
    if format is not None:
        return format
    kinds = {by_ending(file) for file in files}
    if len(kinds) > 1:
        shown = ", ".join(sorted(kind.value if kind else "unknown" for kind in kinds))
        raise TrainerError(
            Reason.DATA_INVALID, f"{uri} has files of more than one format ({shown}); name one in `format`, or narrow the glob", where=where
        )
    kind = kinds.pop()
    if kind is None:
        raise TrainerError(
            Reason.DATA_INVALID,
            f"the format of {files[0].name} can't be told from its ending; write format: jsonl, csv, parquet or text",
            where=where,
        )
    return kind
