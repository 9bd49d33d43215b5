"""Classification: one label a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_api import constants as c
from finetune_api.constants import Reason
from finetune_trainer.data.rows import Supervision
from finetune_trainer.objectives.base import Example, Options, Outcome, RowError, Span, Specials, fit, hash64, kind, text_field

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Classification:
    """Rows have a text and a label. Labels are numbered in the order in which they come; `labels` says which number is which."""

    supervision: Supervision = "none"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, options: Options) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._options = options
        self._suffix = len(Specials.of(tokenizer).suffix)
        self._text = options.columns.text or "text"
        self._label = options.columns.label or "label"
        self.labels: dict[str, int] = {}

    @property
    def columns(self) -> list[str]:
        return [self._text, self._label]

    def read(self, row: Mapping[str, Any]) -> Example | None:
        text = text_field(row, self._text, field="text")
        if not text.strip():
            raise RowError(f"field {self._text!r} is empty")
        label = self._read_label(row)
        return Example((Span(text),), label, hash64(text, label), hash64(text), len(text))

    def encode(self, examples: Sequence[Example]) -> list[Outcome]:
        encodings = self._backend.encode_batch_fast([example.spans[0].text for example in examples], add_special_tokens=True)
        return [
            fit(encoding.ids, self._options, example=example, keep_end=self._suffix, label=self._number(example))
            for example, encoding in zip(examples, encodings, strict=True)
        ]

    def _read_label(self, row: Mapping[str, Any]) -> str:
        value = row.get(self._label)
        # A whole number is a common spelling of a class; 1.0 and true are accidents of some other program.
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        elif value is not None and not isinstance(value, str):
            raise RowError(f"field {self._label!r} is {kind(value)}, not a string or a whole number")
        label = value if isinstance(value, str) else text_field(row, self._label, field="label")
        if not label.strip():
            raise RowError(f"field {self._label!r} is empty; every row needs a label")
        if self._options.labels is not None and label not in self._options.labels:
            raise RowError(f"label {label!r} is not in data.labels", Reason.LABEL_UNKNOWN)
        if len(label) > 256:
            raise RowError(f"label {label[:40] + '…'!r} is longer than 256 characters; is {self._label!r} the right column?")
        if label not in self.labels:
            if len(self.labels) >= c.MAX_LABELS:
                raise RowError(
                    f"label {label!r} is one more than the {c.MAX_LABELS} that are supported; is {self._label!r} the right column?"
                )
            self.labels[label] = len(self.labels)
        return label

    def _number(self, example: Example) -> int:
        return self.labels[example.label] if example.label is not None else -1
