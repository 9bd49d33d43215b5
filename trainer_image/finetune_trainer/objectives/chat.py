"""From messages to text in spans: which parts of a rendered chat the assistant says.

With `{% generation %}` markers the template says it. Without them it follows from prefixes: what the template renders up to an answer
must be a prefix of what it renders with the answer. Templates that rewrite earlier turns break this, row by row, and are refused:
training on them would teach text that the model never sees when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_api.constants import Reason
from finetune_trainer.objectives.base import RowError, Span, kind, well_formed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Messages = list[dict[str, str]]

ROLES = ("system", "developer", "user", "assistant", "tool")
_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")


def read_messages(value: object, name: str) -> Messages:
    """Check a chat: a list of {role, content} in which the assistant says something. Messages after its last answer are left out:
    nothing in them is learned. Raises RowError."""
    if not isinstance(value, list):
        raise RowError(f'field {name!r} is {kind(value)}, not an array of messages like {{"role": "user", "content": "…"}}')
    messages = [_message(message, f"{name}[{number}]") for number, message in enumerate(value)]
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        raise RowError(f"field {name!r} has no message of the assistant, so there is nothing to learn from it")
    return messages[: answers[-1] + 1]


def _message(message: object, place: str) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise RowError(f"{place} is {kind(message)}, not an object with role and content")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        hint = " (it has 'from' and 'value': rename them to role and content)" if "from" in message else ""
        raise RowError(f"{place} has no role{hint}; roles are {', '.join(ROLES)}")
    if role not in ROLES:
        raise RowError(f"{place} has the role {role!r}; roles are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise RowError(f"{place}.content is {'missing' if 'content' not in message else kind(content) + ', not a string'}")
    if role == "assistant" and not content.strip():
        raise RowError(f"{place} is an empty turn of the assistant; remove the row, or write what it says")
    if "\0" in content:
        raise RowError(f"{place}.content holds a NUL character")
    return {"role": role, "content": well_formed(content, f"{place}.content")}


class ChatTemplate:
    """A tokenizer's chat template, rendered by transformers' sandboxed Jinja."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, end_tokens: Sequence[int]) -> None:
        self._template: str = tokenizer.get_chat_template()
        self._marked = _MARKER.search(self._template) is not None
        self._special: dict[str, Any] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        self._ends = [str(tokenizer.convert_ids_to_tokens(token)) for token in end_tokens]
        self._controls = tuple(sorted({str(token) for token in tokenizer.added_tokens_encoder}))
        self._end: str | None = tokenizer.eos_token

    def spans(self, messages: Messages) -> tuple[Span, ...]:
        """The rendered chat, cut where supervision begins and ends. The last span is an answer with its end token."""
        text, answers = self._from_markers(messages) if self._marked else self._from_prefixes(messages)
        answers = [(start, self._end_of_turn(text, start, end)) for start, end in answers]
        # What a template writes after the last end token is never generated.
        text = text[: answers[-1][1]]
        spans: list[Span] = []
        reached = 0
        for start, end in answers:
            spans += [Span(text[reached:start]), Span(text[start:end], True)]
            reached = end
        if self._end is not None and not text.rstrip().endswith(self._controls):
            spans[-1] = Span(spans[-1].text + self._end, True)
        return tuple(span for span in spans if span.text)

    def _end_of_turn(self, text: str, start: int, end: int) -> int:
        """Where an answer's end token ends: just behind the marked part, or within it, before what is only space."""
        behind = next((mark for mark in self._ends if text.startswith(mark, end)), None)
        if behind is not None:
            return end + len(behind)
        trimmed = text[start:end].rstrip()
        return start + len(trimmed) if trimmed.endswith(tuple(self._ends)) else end

    def _from_markers(self, messages: Messages) -> tuple[str, list[tuple[int, int]]]:
        text, marks = self._render(messages, marks=True)
        answers = [(start, end) for start, end in marks if end > start]
        if not answers:
            raise RowError("the chat template marks nothing with {% generation %} in this chat", Reason.CHAT_TEMPLATE_UNSUPPORTED)
        return text, answers

    def _from_prefixes(self, messages: Messages) -> tuple[str, list[tuple[int, int]]]:
        text, _ = self._render(messages)
        answers: list[tuple[int, int]] = []
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            last = number == len(messages) - 1
            before, _ = self._render(messages[:number], prompt=True)
            after = text if last else self._render(messages[: number + 1])[0]
            if not (after.startswith(before) and text.startswith(after)):
                raise RowError(
                    f"the chat template renders messages 0 to {number} differently when more follows, so what the assistant says can't be "
                    "told apart",
                    Reason.CHAT_TEMPLATE_UNSUPPORTED,
                )
            answers.append((len(before), len(after)))
        return text, answers

    def _render(self, messages: Messages, *, prompt: bool = False, marks: bool = False) -> tuple[str, list[tuple[int, int]]]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            rendered, indices = render_jinja_template(
                [messages],
                chat_template=self._template,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=marks,
                **self._special,
            )
        except (TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
            # A template says with raise_exception what it does not take, such as two messages of the user in a row.
            raise RowError(f"the chat template refuses this chat: {error}") from None
        return rendered[0], list(indices[0]) if marks else []
