"""What every objective's text side is: from a row of a file to tokens, and which of them are learned.

`read` looks at one row and says at once what is wrong with it; `encode` tokenises many rows together, because the tokenizer is fast only
then. Nothing here knows files or imports torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from finetune_api.constants import Reason
from finetune_api.v1alpha1.data import Columns, Overflow
from finetune_trainer.data.rows import Bools, Encoded, Ints, Supervision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class RowError(Exception):
    """What is wrong with a row, for its user; the caller knows the file and line."""

    def __init__(self, message: str, reason: Reason = Reason.DATA_INVALID) -> None:
        super().__init__(message)
        self.reason = reason


class Span(NamedTuple):
    """A piece of text that is tokenised as one, and whether it is learned."""

    text: str
    supervised: bool = False


class Example(NamedTuple):
    """A row that was read: its text in pieces, whose concatenation the model sees."""

    spans: tuple[Span, ...]
    label: str | None
    content: int
    """Hash of everything that the objective read."""
    input: int
    """Hash of the text or prompt alone."""
    size: int
    """Characters, to keep batches of equal work."""


class Fate(StrEnum):
    """What became of a row."""

    KEPT = "kept"
    TRUNCATED = "truncated"
    TOO_LONG = "tooLong"
    UNSUPERVISED = "unsupervised"


class Outcome(NamedTuple):
    """A tokenised row: `row` is None where it is not used."""

    row: Encoded | None
    length: int
    """Tokens before truncation."""
    fate: Fate
    problem: str | None = None


@dataclass(frozen=True)
class Options:
    """What of a manifest decides how rows become tokens."""

    max_length: int
    columns: Columns
    overflow: Overflow = Overflow.TRUNCATE
    labels: tuple[str, ...] | None = None
    end_tokens: tuple[int, ...] = ()
    """Ids that end an answer."""


class Objective(Protocol):
    """The text side of an objective."""

    supervision: Supervision
    """Which tokens are learned, where rows don't say it one by one."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns in the file that are read, where present."""
        ...

    def read(self, row: Mapping[str, Any]) -> Example | None:
        """Check a row's fields and types. None: a blank row that is skipped and counted. Raises RowError."""
        ...

    def encode(self, examples: Sequence[Example]) -> list[Outcome]:
        """Tokenise; one outcome an example, in order."""
        ...


class Specials(NamedTuple):
    """The tokens that a tokenizer puts around a text."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> Specials:
        """Read off from a text of one letter: whatever the post-processor is, this is what it does."""
        encoding = tokenizer.backend_tokenizer.encode("a", add_special_tokens=True)
        mask = encoding.special_tokens_mask
        text = [index for index, special in enumerate(mask) if not special]
        if not text:
            return cls(tuple(encoding.ids), ())
        return cls(tuple(encoding.ids[: text[0]]), tuple(encoding.ids[text[-1] + 1 :]))


def text_field(row: Mapping[str, Any], name: str, *, field: str) -> str:
    """A string column; raises RowError where it is missing, null or of another type. `field`: its name under data.columns."""
    if name not in row:
        shown = ", ".join(repr(key) for key in list(row)[:8]) or "nothing"
        raise RowError(f"has no field {name!r}; it has {shown}. If the column has another name, set data.columns.{field}")
    value = row[name]
    if not isinstance(value, str):
        raise RowError(f"field {name!r} is {kind(value)}, not a string")
    if "\0" in value:
        raise RowError(f"field {name!r} holds a NUL character")
    return well_formed(value, name)


def well_formed(value: str, name: str) -> str:
    r"""JSON can spell half of a surrogate pair (`"\ud83d"` alone), which is no text; raises RowError."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RowError(
                f"field {name!r} holds a broken escape: one of \\ud800 to \\udfff without its other half, such as an emoji that was cut in two"
            ) from None
    return value


def kind(value: object) -> str:
    """The JSON type of a value, with its article."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "an array", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def hash64(*parts: object) -> int:
    """64 bits of BLAKE2b over the parts, each kept apart from the next. Ten million rows collide with a chance of 3 in a million."""
    text = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else _JSON.encode(parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def fit(
    tokens: list[int] | Ints,
    options: Options,
    *,
    example: Example,
    keep_end: int = 0,
    supervised: Bools | None = None,
    label: int = -1,
    prompt_length: int = 0,
    least: int = 1,
) -> Outcome:
    """Apply the overflow policy. keep_end: tokens at the end that survive truncation (a [SEP]). least: supervised tokens (tokens, where
    there is no mask) below which a row teaches nothing."""
    ids = np.asarray(tokens, np.int32)
    length, fate = len(ids), Fate.KEPT
    if length > options.max_length:
        if options.overflow is Overflow.DROP:
            return Outcome(None, length, Fate.TOO_LONG)
        if options.overflow is Overflow.REFUSE:
            problem = f"has {length} tokens, more than training.maxLength {options.max_length} (data.overflow is refuse)"
            return Outcome(None, length, Fate.TOO_LONG, problem)
        fate = Fate.TRUNCATED
        head = options.max_length - keep_end
        kept = np.concatenate([np.arange(head), np.arange(length - keep_end, length)])
        ids = ids[kept]
        supervised = None if supervised is None else supervised[kept]
    learned = len(ids) if supervised is None else int(supervised.sum())
    if learned < least:
        return Outcome(None, length, Fate.UNSUPERVISED)
    row = Encoded(ids, supervised, label, min(prompt_length, len(ids)), example.content, example.input)
    return Outcome(row, length, fate)
