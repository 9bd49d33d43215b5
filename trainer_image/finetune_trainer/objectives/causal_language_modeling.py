"""Causal language modelling: every token is predicted from those before it; a document ends with the end token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_trainer.data.rows import Encoded, Supervision
from finetune_trainer.objectives.base import Example, Options, Outcome, Span, Specials, fit, hash64, text_field

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class CausalLanguageModeling:
    """Rows have a text. It starts with the tokenizer's start token, once, where the tokenizer uses one, and ends with its end token."""

    supervision: Supervision = "all"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, options: Options) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._options = options
        self._start = Specials.of(tokenizer).prefix
        self._end: int | None = tokenizer.eos_token_id
        self._column = options.columns.text or "text"

    @property
    def columns(self) -> list[str]:
        return [self._column]

    def read(self, row: Mapping[str, Any]) -> Example | None:
        return read_text(row, self._column)

    def encode(self, examples: Sequence[Example]) -> list[Outcome]:
        encodings = self._backend.encode_batch_fast([example.spans[0].text for example in examples], add_special_tokens=False)
        return [
            # The first token has nothing before it, so one token teaches nothing.
            fit([*self._open(encoding.ids), *self._close(encoding.ids)], self._options, example=example, least=2)
            for example, encoding in zip(examples, encodings, strict=True)
        ]

    def open_document(self) -> list[int]:
        """Tokens before a document that is cut in chunks."""
        return list(self._start)

    def piece(self, text: str) -> list[int]:
        """Tokens of a piece of a document."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def close_document(self) -> list[int]:
        """Tokens after a document."""
        return [] if self._end is None else [self._end]

    def chunk(self, ids: list[int]) -> Encoded | None:
        """A row of a document, of at most `room` tokens; None where it teaches nothing."""
        return fit(ids, self._options, example=tokens_example(ids), least=2).row

    @property
    def room(self) -> int:
        """Tokens of a document that fit into a row."""
        return self._options.max_length

    def _open(self, ids: list[int]) -> list[int]:
        # A text may bring its start token itself; two of them are seen by no model in its pre-training.
        start = self._start
        return ids if start and tuple(ids[: len(start)]) == start else [*start, *ids]

    def _close(self, ids: list[int]) -> list[int]:
        return [] if self._end is None or (ids and ids[-1] == self._end) else [self._end]


def read_text(row: Mapping[str, Any], column: str) -> Example | None:
    """A row of language modelling; None for a blank one."""
    text = text_field(row, column, field="text")
    if not text.strip():
        return None
    digest = hash64(text)
    return Example((Span(text),), None, digest, digest, len(text))


def tokens_example(ids: list[int]) -> Example:
    """A chunk of a document has no text of its own: its tokens are hashed."""
    digest = hash64(ids)
    return Example((), None, digest, digest, len(ids))
