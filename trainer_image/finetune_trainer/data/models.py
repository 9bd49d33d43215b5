"""Where the base model lies, and whether it may and can be loaded: weights that are there, are no pickle, and need no code of their own."""

from __future__ import annotations

import fnmatch
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from finetune_api.constants import Reason
from finetune_api.wire import TrainerConfig
from finetune_trainer.data import hub
from finetune_trainer.data.sources import local_path, repository, unreadable
from finetune_trainer.errors import TrainerError
from finetune_trainer.tokenizer import read_json

MODEL_URI: Final = "spec.model.uri"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx")
_INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000
"""Bytes; safetensors reads no longer one either."""
_COPY_AGAIN = "Copy or download the model's files again: what lies there is not whole."
_LIMIT_OF_LIMITS = 1 << 24
"""Above this, a tokenizer's model_max_length means "not set"."""


@dataclass(frozen=True)
class LocatedModel:
    path: Path
    """The folder, or the .gguf file (`tokenizer.gguf_arguments`)."""
    revision: str | None
    """The commit of the hub."""


def locate_model(config: TrainerConfig, *, revision: str | None = None) -> LocatedModel:
    """Find the base model and check its folder. `revision`: the commit that an earlier start of this run resolved, where the manifest names none.

    Raises TrainerError: SourceNotFound, SourceForbidden, SourceUnreachable, ModelUnsupported, ModelUnsafe.
    """
    model = config.spec.model
    return locate_folder(model.uri, config=config, revision=model.revision or revision, credentials=model.credentials, where=MODEL_URI)


def locate_folder(uri: str, *, config: TrainerConfig, revision: str | None, credentials: str | None, where: str) -> LocatedModel:
    """Find a model by its URI and check its folder. `where`: the URI's field of the manifest, for messages. Raises what locate_model does."""
    if not uri.startswith("hf://"):
        path, root, _ = local_path(uri, config=config, where=where)
        try:
            return LocatedModel(_on_disk(path, root, uri, where), None)
        except PermissionError as error:
            raise unreadable(error.filename, uri, where=where) from None
    named, _ = repository(uri, config=config, revision=revision, credentials=credentials, where=where)
    snapshot = hub.fetch(named, allow=_WANTED, ignore=("*/*",))
    if not any(snapshot.folder.glob("*.safetensors")):
        _check_weights(hub.names(named, snapshot.commit), uri, where)
    return LocatedModel(check_folder(snapshot.folder, where=where), snapshot.commit)


def _on_disk(path: Path, root: Path | None, uri: str, where: str) -> Path:
    if not path.exists():
        raise TrainerError(Reason.SOURCE_NOT_FOUND, f"there is no folder {path} ({uri})", where=where)
    if root is not None:
        _check_links(path, root.resolve(), uri, where)
    # Every file now: weights and tokenizers are read by libraries that wrap a refusal in words of their own.
    for file in model_files(path.resolve()):
        if not os.access(file, os.R_OK):
            raise unreadable(file, uri, where=where)
    return check_folder(path.resolve(), where=where)


def check_folder(path: Path, *, where: str = MODEL_URI) -> Path:
    """Return the folder, or the .gguf file in it, if a model can be loaded from there. Raises TrainerError."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise TrainerError(Reason.MODEL_UNSUPPORTED, f"{path} is a file; name the model's folder, or a .gguf file", where=where)
        return path
    if not path.is_dir():
        raise TrainerError(Reason.SOURCE_NOT_FOUND, f"there is no file {path}", where=where)
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs and not any(name.endswith(".safetensors") for name in names):
        if len(ggufs) > 1:
            raise TrainerError(
                Reason.MODEL_UNSUPPORTED, f"{path} has {len(ggufs)} .gguf files: name one, such as {path / ggufs[0]}", where=where
            )
        return path / ggufs[0]
    _check_config(path, where)
    _check_weights(names, str(path), where)
    _check_whole(path, [name for name in names if name.endswith(".safetensors")], where)
    if not any(name in names for name in _TOKENIZER_FILES):
        raise TrainerError(
            Reason.MODEL_UNSUPPORTED, f"{path} has no tokenizer: none of {', '.join(_TOKENIZER_FILES)} is there", where=where
        )
    return path


class Limits(NamedTuple):
    """How long a row may be, in tokens; None where the model doesn't say."""

    hard: int | None
    """Positions that the model has."""
    advised: int | None
    """What the tokenizer asks for, where that is less."""


UNLIMITED = Limits(None, None)


def length_limits(path: Path) -> Limits:
    """Read them from config.json and tokenizer_config.json, or from the GGUF file."""
    if path.is_file():
        context = _gguf_context(path)
        return Limits(context, context)
    config = read_json(path / "config.json")
    config = {**config, **config.get("text_config", {})}
    hard = min((config[name] for name in _LENGTHS if isinstance(config.get(name), int) and config[name] > 0), default=None)
    wanted = read_json(path / "tokenizer_config.json").get("model_max_length")
    advised = wanted if isinstance(wanted, int) and 0 < wanted < _LIMIT_OF_LIMITS else None
    return Limits(hard, min((limit for limit in (hard, advised) if limit is not None), default=None))


def model_files(path: Path) -> list[Path]:
    """The files that decide what the model is, sorted."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and any(fnmatch.fnmatch(file.name, wanted) for wanted in _WANTED))


def _check_links(path: Path, root: Path, uri: str, where: str) -> None:
    """What a claim doesn't hold is not its owner's to read: a template or weights by a link would stand in the published model."""
    for each in (path, *path.rglob("*")):
        if not each.resolve().is_relative_to(root):
            raise TrainerError(Reason.INVALID_SPEC, f"{each} is a link that leaves the claim ({uri})", where=where)


def _check_config(folder: Path, where: str) -> None:
    if not (folder / "config.json").is_file():
        raise TrainerError(
            Reason.MODEL_UNSUPPORTED, f"{folder} has no config.json: it is not a model's folder as transformers writes it", where=where
        )
    for name in ("config.json", "tokenizer_config.json"):
        document = read_json(folder / name)
        if document.get("auto_map"):
            raise TrainerError(
                Reason.MODEL_UNSAFE,
                f"{folder / name} asks for code of its own (auto_map: {', '.join(map(str, document['auto_map']))}), which is never run; "
                "use a model whose architecture transformers knows",
                where=where,
            )
    if not isinstance(read_json(folder / "config.json").get("model_type"), str):
        raise TrainerError(Reason.MODEL_UNSUPPORTED, f"{folder / 'config.json'} names no model_type", where=where)


def _check_weights(names: list[str], place: str, where: str) -> None:
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in _PICKLES)]
    if pickles:
        raise TrainerError(
            Reason.MODEL_UNSAFE,
            f"{place} has its weights as pickle only ({', '.join(pickles[:3])}), which can run code when it is loaded; convert them to "
            "safetensors where you trust them: AutoModel.from_pretrained(…).save_pretrained(…)",
            where=where,
        )
    raise TrainerError(Reason.MODEL_UNSUPPORTED, f"{place} has no weights: there is no .safetensors and no .gguf file", where=where)


def _check_whole(folder: Path, weights: list[str], where: str) -> None:
    """A download that ended too soon is found here, before anything waits for a GPU: a few bytes of each file are read."""
    lacking = sorted({*map(str, (read_json(folder / _INDEX).get("weight_map") or {}).values())} - {*weights})
    if lacking:
        message = f"{folder} lacks {', '.join(lacking[:3])}, which {_INDEX} names"
        raise TrainerError(Reason.MODEL_UNSUPPORTED, message, where=where, hint=_COPY_AGAIN)
    for name in weights:
        promised, size = _promised_size(folder / name), (folder / name).stat().st_size
        if promised != size:
            told = f"has {size} bytes and must have {promised}" if promised is not None else "has no header that can be read"
            message = f"{folder / name} {told}: it is cut off or damaged"
            raise TrainerError(Reason.MODEL_UNSUPPORTED, message, where=where, hint=_COPY_AGAIN)


def _promised_size(path: Path) -> int | None:
    """Bytes that a safetensors file must have by its header; None where the header is damaged."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= _LONGEST_HEADER:
            return None
        try:
            header = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return None
    return int(8 + length + max(ends, default=0))


def _gguf_context(path: Path) -> int | None:
    from gguf import GGUFReader

    try:
        fields = GGUFReader(path).fields
    except (ValueError, OSError, IndexError) as error:
        raise TrainerError(Reason.MODEL_UNSUPPORTED, f"{path} is not a whole GGUF file: {error}", where=MODEL_URI) from None
    field = next((field for name, field in fields.items() if name.endswith(".context_length")), None)
    return None if field is None else int(field.contents())
