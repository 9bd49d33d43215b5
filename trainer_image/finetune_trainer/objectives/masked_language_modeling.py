"""Masked language modelling: some tokens are hidden and predicted from both sides. Which ones is decided in training; here, which may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_api.constants import Reason
from finetune_trainer.data.rows import Bools, Encoded, Supervision
from finetune_trainer.errors import TrainerError
from finetune_trainer.objectives.base import Example, Options, Outcome, Specials, fit
from finetune_trainer.objectives.causal_language_modeling import read_text, tokens_example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class MaskedLanguageModeling:
    """Rows have a text, which gets the tokenizer's own frame ([CLS] … [SEP]). `supervised` marks what may be masked: all but special tokens."""

    supervision: Supervision = "mask"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, options: Options) -> None:
        if tokenizer.mask_token_id is None:
            raise TrainerError(
                Reason.MODEL_UNSUPPORTED,
                "the tokenizer has no mask token, which maskedLanguageModeling needs; use causalLanguageModeling for this model",
                where="spec.model.uri",
            )
        self._backend = tokenizer.backend_tokenizer
        self._options = options
        self._specials = Specials.of(tokenizer)
        self._special_ids = np.asarray(tokenizer.all_special_ids, np.int32)
        self._column = options.columns.text or "text"

    @property
    def columns(self) -> list[str]:
        return [self._column]

    def read(self, row: Mapping[str, Any]) -> Example | None:
        return read_text(row, self._column)

    def encode(self, examples: Sequence[Example]) -> list[Outcome]:
        encodings = self._backend.encode_batch_fast([example.spans[0].text for example in examples], add_special_tokens=True)
        return [self._fit(encoding.ids, example) for example, encoding in zip(examples, encodings, strict=True)]

    def open_document(self) -> list[int]:
        """Nothing: every chunk gets its own frame."""
        return []

    def piece(self, text: str) -> list[int]:
        """Tokens of a piece of a document."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def close_document(self) -> list[int]:
        """Nothing, as above."""
        return []

    def chunk(self, ids: list[int]) -> Encoded | None:
        """A row of a document, of at most `room` tokens; None where it teaches nothing."""
        return self._fit([*self._specials.prefix, *ids, *self._specials.suffix], tokens_example(ids)).row

    @property
    def room(self) -> int:
        """Tokens of a document that fit into a row, beside its frame."""
        return self._options.max_length - len(self._specials.prefix) - len(self._specials.suffix)

    def _fit(self, ids: list[int], example: Example) -> Outcome:
        return fit(ids, self._options, example=example, keep_end=len(self._specials.suffix), supervised=self._maskable(ids))

    def _maskable(self, ids: list[int]) -> Bools:
        return ~np.isin(np.asarray(ids, np.int32), self._special_ids)
