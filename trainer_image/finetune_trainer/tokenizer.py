"""The tokenizer of a job: the model's own, with the manifest's chat template, added tokens and pad token.

A folder with tokenizer.json is read as it stands, through the class that needs no torch; anything else (GGUF, vocabulary files) goes
through AutoTokenizer. What `prepare` saved under the run folder is always of the first kind.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune_api.constants import Reason
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_trainer.errors import TrainerError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_PAD_NAMES = ("<pad>", "[PAD]", "<PAD>", "<|pad|>", "<|endofpad|>", "<|finetune_right_pad_id|>", "<|PAD_TOKEN|>")
_RESERVED = re.compile(r"^[<\[]\|?(reserved[_a-z]*|unused|extra|dummy|placeholder)[_ ]?\d+\|?[>\]]$", re.IGNORECASE)


class Padding(NamedTuple):
    """The token that pads batches, and why this one."""

    token: str
    why: str


def load_tokenizer(folder: Path, spec: FineTuneJobSpec) -> PreTrainedTokenizerFast:
    """Return the model's tokenizer with the manifest's changes; `folder` is the model's folder, or its .gguf file.

    It pads on the right, and neither pads nor truncates by itself. Raises TrainerError (ModelUnsupported, InvalidSpec).
    """
    return load_with_padding(folder, spec)[0]


def load_with_padding(folder: Path, spec: FineTuneJobSpec) -> tuple[PreTrainedTokenizerFast, Padding]:
    """As load_tokenizer, with the reason for the pad token."""
    tokenizer = own_tokenizer(folder)
    if spec.model.chat_template is not None:
        tokenizer.chat_template = spec.model.chat_template
    if spec.tokenizer.add_tokens:
        tokenizer.add_tokens(list(spec.tokenizer.add_tokens))
    padding = choose_padding(tokenizer.get_vocab(), own=tokenizer.pad_token, end=tokenizer.eos_token, wanted=spec.tokenizer.pad_token)
    tokenizer.pad_token = padding.token
    tokenizer.padding_side = "right"
    return tokenizer, padding


def choose_padding(vocabulary: Iterable[str], *, own: str | None, end: str | None, wanted: str | None) -> Padding:
    """The manifest's pad token; else the model's; else a reserved token that no text uses; else the end token.

    Batches are masked by position, never by token, so that a real end token stays supervised in the last case.
    """
    tokens = vocabulary if isinstance(vocabulary, dict) else dict.fromkeys(vocabulary)
    if wanted is not None:
        if wanted not in tokens:
            raise TrainerError(
                Reason.INVALID_SPEC,
                f"{wanted!r} is not in the tokenizer's vocabulary; add it with tokenizer.addTokens, or name a token that is there",
                where="spec.tokenizer.padToken",
            )
        return Padding(wanted, "spec.tokenizer.padToken")
    if own is not None:
        return Padding(own, "the model's pad token")
    reserved = next((name for name in _PAD_NAMES if name in tokens), None) or min(filter(_RESERVED.match, tokens), default=None)
    if reserved is not None:
        return Padding(reserved, "an unused reserved token: the model has no pad token")
    if end is not None:
        return Padding(end, "the end token, masked by position: the model has neither a pad token nor a reserved one")
    raise TrainerError(
        Reason.MODEL_UNSUPPORTED,
        "the tokenizer has no pad token, no reserved token and no end token to pad batches with; set it to a token of the vocabulary",
        where="spec.tokenizer.padToken",
    )


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 of all that decides how text becomes tokens: the backend's whole state, the template, the special tokens."""
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode())
    rest = {"template": tokenizer.chat_template, "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()}}
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def end_tokens(folder: Path, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids that end an answer: the tokenizer's end token, and those that the model's generation_config.json names."""
    ids = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    for name in ("generation_config.json", "config.json"):
        listed = read_json(folder / name).get("eos_token_id") if folder.is_dir() else None
        ids += [int(token) for token in (listed if isinstance(listed, list) else [listed]) if token is not None]
    return sorted(token for token in set(ids) if token < len(tokenizer))


def gguf_arguments(folder: Path) -> tuple[Path, dict[str, str]]:
    """The folder and the keywords for `from_pretrained`: `gguf_file` where the model is a .gguf file."""
    return (folder.parent, {"gguf_file": folder.name}) if folder.suffix == ".gguf" else (folder, {})


def vocabulary_size(folder: Path) -> int | None:
    """Rows of the model's embeddings as its config.json says; None where it doesn't (GGUF)."""
    config = read_json(folder / "config.json") if folder.is_dir() else {}
    size = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    return size if isinstance(size, int) else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model's folder; {} where the file is missing."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainerError(Reason.MODEL_UNSUPPORTED, f"{path.name} is not JSON ({error})", where=str(path)) from None
    if not isinstance(document, dict):
        raise TrainerError(Reason.MODEL_UNSUPPORTED, f"{path.name} is not a JSON object", where=str(path))
    return document


def own_tokenizer(folder: Path, *, where: str = "spec.model.uri") -> PreTrainedTokenizerFast:
    """A model's tokenizer as it stands, but that it neither pads nor truncates. `where`: the model's field of the manifest, for messages.

    Raises TrainerError (ModelUnsupported).
    """
    place, arguments = gguf_arguments(folder)
    try:
        if (place / "tokenizer.json").is_file() and not arguments:
            # AutoTokenizer would import torch, and for some classes rebuild the tokenizer from its vocabulary alone.
            from transformers import PreTrainedTokenizerFast

            tokenizer = PreTrainedTokenizerFast.from_pretrained(place)
        else:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **arguments)
    except (ValueError, OSError, KeyError, ImportError, AttributeError) as error:
        raise TrainerError(
            Reason.MODEL_UNSUPPORTED,
            f"transformers can't load the tokenizer in {place}: {str(error).strip().splitlines()[0] if str(error) else error!r}",
            where=where,
        ) from error
    if not tokenizer.is_fast:
        raise TrainerError(
            Reason.MODEL_UNSUPPORTED,
            f"{type(tokenizer).__name__} has no fast form; save the model with a tokenizer.json first",
            where=where,
        )
    # A limit or padding that is baked into tokenizer.json would cut rows without a word.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    _check_vocabulary(tokenizer, vocabulary_size(folder), where)
    return tokenizer


def _check_vocabulary(tokenizer: PreTrainedTokenizerFast, rows: int | None, where: str) -> None:
    if rows is None:
        return
    beyond = sorted((index, token) for token, index in tokenizer.get_vocab().items() if index >= rows)
    if beyond:
        index, token = beyond[0]
        raise TrainerError(
            Reason.MODEL_UNSUPPORTED,
            f"the tokenizer has {len(beyond)} token(s) without an embedding: {token!r} has the id {index}, the model has {rows} rows "
            "(vocab_size in config.json)",
            where=where,
            hint="Use the tokenizer that belongs to this model: put its tokenizer files into the model's folder.",
        )
