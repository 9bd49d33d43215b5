"""Supervised: what the assistant says is learned, what it is asked is not. Rows are prompt and completion, or a chat.

With a chat template a prompt and its completion are a chat of two messages. Without one they are joined as they stand, with the
tokenizer's start token before and its end token after them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_api.constants import Reason
from finetune_trainer.data.rows import Supervision
from finetune_trainer.errors import TrainerError
from finetune_trainer.objectives.base import Example, Options, Outcome, RowError, Span, Specials, fit, hash64, text_field
from finetune_trainer.objectives.chat import ChatTemplate, Messages, read_messages

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerFast


class Supervised:
    """Rows have `messages`, or `prompt` and `completion`. The end token after each answer is learned."""

    supervision: Supervision = "mask"

    def __init__(self, tokenizer: PreTrainedTokenizerFast, options: Options) -> None:
        if tokenizer.eos_token is None:
            raise TrainerError(
                Reason.MODEL_UNSUPPORTED,
                "the tokenizer has no end token, so the model could never learn where an answer ends; use a model with one",
                where="spec.model.uri",
            )
        self._backend = tokenizer.backend_tokenizer
        self._options = options
        self._chat = ChatTemplate(tokenizer, options.end_tokens) if tokenizer.chat_template else None
        self._start = Specials.of(tokenizer).prefix
        self._end: str = tokenizer.eos_token
        self._prompt = options.columns.prompt or "prompt"
        self._completion = options.columns.completion or "completion"
        self._messages = options.columns.messages or "messages"

    @property
    def columns(self) -> list[str]:
        return [self._messages, self._prompt, self._completion]

    def read(self, row: Mapping[str, Any]) -> Example | None:
        messages = self._read_messages(row)
        if self._chat is not None:
            spans = self._chat.spans(messages)
        else:
            spans = (Span(messages[0]["content"]), Span(messages[1]["content"] + self._end, True))
        said = [[message["role"], message["content"]] for message in messages]
        return Example(spans, None, hash64(*said), hash64(*said[:-1]), sum(len(span.text) for span in spans))

    def encode(self, examples: Sequence[Example]) -> list[Outcome]:
        encodings = self._backend.encode_batch(
            ["".join(span.text for span in example.spans) for example in examples], add_special_tokens=False
        )
        return [self._outcome(example, encoding) for example, encoding in zip(examples, encodings, strict=True)]

    def _read_messages(self, row: Mapping[str, Any]) -> Messages:
        if row.get(self._messages) is not None:
            if self._chat is None:
                raise RowError(
                    f"field {self._messages!r} is a chat, and the model has no chat template; give one in model.chatTemplate",
                    Reason.CHAT_TEMPLATE_UNSUPPORTED,
                )
            return read_messages(row[self._messages], self._messages)
        if self._prompt not in row and self._completion not in row:
            shown = ", ".join(repr(key) for key in list(row)[:8]) or "nothing"
            raise RowError(
                f"has neither {self._messages!r} nor {self._prompt!r} and {self._completion!r}; it has {shown}. If the columns have other "
                "names, set data.columns"
            )
        prompt = text_field(row, self._prompt, field="prompt")
        completion = text_field(row, self._completion, field="completion")
        for name, value in ((self._prompt, prompt), (self._completion, completion)):
            if not value.strip():
                raise RowError(f"field {name!r} is empty")
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]

    def _outcome(self, example: Example, encoding: Encoding) -> Outcome:
        ids, counts = _cut(example.spans, encoding) or self._apart(example.spans)
        # Templates write the start token themselves; a text may too.
        if self._chat is None and self._start and tuple(ids[: len(self._start)]) != self._start:
            ids = [*self._start, *ids]
            counts = [counts[0] + len(self._start), *counts[1:]]
        learned = [span.supervised for span in example.spans]
        supervised = np.repeat(np.asarray(learned), counts)
        # The first token has nothing before it to be predicted from.
        supervised[:1] = False
        last = max(number for number, flag in enumerate(learned) if flag)
        return fit(ids, self._options, example=example, supervised=supervised, prompt_length=sum(counts[:last]))

    def _apart(self, spans: Sequence[Span]) -> tuple[list[int], list[int]]:
        """Tokenise the spans one by one: at use, too, the prompt is tokenised alone and the answer follows it."""
        pieces = [encoding.ids for encoding in self._backend.encode_batch_fast([span.text for span in spans], add_special_tokens=False)]
        return [token for piece in pieces for token in piece], [len(piece) for piece in pieces]


def _cut(spans: Sequence[Span], encoding: Encoding) -> tuple[list[int], list[int]] | None:
    """Tokens of each span, from the tokenised whole; None where a token reaches over an edge, or may (its space may be the one before it)."""
    offsets = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)
    edges = np.cumsum([len(span.text) for span in spans])[:-1]
    firsts = np.searchsorted(offsets[:, 0], edges)
    for first, edge in zip(firsts.tolist(), edges.tolist(), strict=True):
        if first == 0 or offsets[first - 1, 1] != edge:
            return None
    ids: list[int] = encoding.ids
    return ids, np.diff([0, *firsts.tolist(), len(ids)]).tolist()
