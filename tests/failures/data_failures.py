"""Rows that no stage can learn from, as `prepare` finds them."""

from __future__ import annotations

from typing import Final

from finetune_api.constants import Reason
from tests.builders import LEFT_OUT
from tests.failures.base import Layer
from tests.failures.ground import Ground, rows
from tests.failures.run_failure import RunFailure
from tests.tiny import CHATML_WITH_GENERATION

REWRITES: Final = (
    "{% for message in messages %}{{ message['role'] + ' of ' + (messages | length | string) + ': ' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}"
)
"""A template that writes earlier turns anew with each later one, and marks nothing."""


def chats() -> list[dict[str, object]]:
    return [
        {"messages": [{"role": "user", "content": each["prompt"]}, {"role": "assistant", "content": each["completion"]}]} for each in rows()
    ]


def lines(ground: Ground, at: int, line: bytes) -> None:
    """Put a line in the place of another; `at` counts from 1."""
    path = ground.folder / "rows.jsonl"
    found = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*found[: at - 1], line, *found[at:]]) + b"\n")


def without_line(ground: Ground, at: int) -> None:
    path = ground.folder / "rows.jsonl"
    found = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(found[: at - 1] + found[at:]) + b"\n")


def _in_utf_16(ground: Ground) -> None:
    path = ground.folder / "rows.jsonl"
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))


def _in_utf_8(ground: Ground) -> None:
    """`iconv -f UTF-16 -t UTF-8`."""
    path = ground.folder / "rows.jsonl"
    path.write_bytes(path.read_bytes().decode("utf-16").encode())


def _csv(ground: Ground, third: str) -> None:
    (ground.folder / "rows.csv").write_text(f"text,label\na small bird,bird\n{third}\na small tree,tree\na tall tree,tree\n")
    ground.edit({"spec.stages[0].data.train": [{"uri": "file://rows.csv"}]})


def _chat(ground: Ground, question: dict[str, str], answer: str = "a small bird") -> None:
    """Chats, of which the second is as given."""
    second = {"messages": [question, {"role": "assistant", "content": answer}]}
    ground.rows("rows.jsonl", [*chats()[:1], second, *chats()[2:]])
    ground.edit(objective="supervised")


QUESTION: Final = {"role": "user", "content": "Define: bird"}


def _other_column(ground: Ground) -> None:
    ground.rows("rows.jsonl", [{"body": row["text"], "id": number} for number, row in enumerate(rows())])


def _empty(ground: Ground) -> None:
    (ground.folder / "rows.jsonl").write_bytes(b"")


def _no_match(ground: Ground) -> None:
    ground.rows("parts/a.jsonl", rows())
    ground.edit({"spec.stages[0].data.train": [{"uri": "file://parts/*.parquet"}]})


def _mixed(ground: Ground) -> None:
    ground.rows("parts/a.jsonl", rows())
    (ground.folder / "parts/notes.csv").write_text("text\nnotes are not rows\n")
    ground.edit({"spec.stages[0].data.train": [{"uri": "file://parts"}]})


def _latin(ground: Ground) -> None:
    lines(ground, 3, '{"text": "un petit café au coin de la rue"}'.encode("latin-1"))


def _too_long(ground: Ground) -> None:
    lines(ground, 4, b'{"text": "%s"}' % (b"a small bird of the wood " * 40))
    ground.edit({"spec.stages[0].data.overflow": "refuse", "spec.stages[0].training.maxLength": 64})


def _long_prompts(ground: Ground) -> None:
    ground.rows("rows.jsonl", [{**row, "prompt": row["prompt"] + " and say which wood it is of" * 10} for row in rows()])
    ground.edit(objective="supervised")
    ground.edit({"spec.stages[0].training.maxLength": 32})


def _classes(ground: Ground) -> None:
    """A label among the validation rows that no training row has."""
    ground.edit({"spec.stages[0].objective": "classification", "spec.stages[0].data.labels": ["bird", "tree"]})
    ground.rows("check.jsonl", [*rows(4), {"text": "a small fish of the sea", "label": "fish"}])
    ground.edit({"spec.stages[0].data.validation": {"uri": "file://check.jsonl"}})


def _more_labels(ground: Ground) -> None:
    ground.edit({"spec.stages[0].data.labels": ["bird", "tree", "fish"]})
    ground.rows("rows.jsonl", [*rows(), {"text": "a large fish of the river", "label": "fish"}])


def _leaks(ground: Ground) -> None:
    ground.edit({"spec.stages[0].data.validation": {"uri": "file://rows.jsonl"}})


def _chats(ground: Ground, template: str) -> None:
    ground.rows("rows.jsonl", chats())
    ground.edit({"spec.stages[0].objective": "supervised", "spec.model.chatTemplate": template})


def _tiny_fraction(ground: Ground) -> None:
    ground.rows("rows.jsonl", rows(1))
    ground.edit({"spec.stages[0].data.validation": {"fraction": 0.5}})


DATA_FAILURES: Final = (
    RunFailure(
        name="line-no-json",
        layer=Layer.DATA,
        what="a line that is cut off in the middle",
        reason=Reason.DATA_INVALID,
        place="rows.jsonl:2: is not JSON",
        hint="Correct what the message lists, by file and line",
        fix="line 2 was written whole",
        seed=lambda ground: lines(ground, 2, b'{"text": "the tree numb'),
        mend=lambda ground: lines(ground, 2, b'{"text": "the tree number one"}'),
    ),
    RunFailure(
        name="line-no-object",
        layer=Layer.DATA,
        what="a line that is a list",
        reason=Reason.DATA_INVALID,
        place='rows.jsonl:2: is an array, not an object like {"text": "…"}',
        hint="Correct what the message lists, by file and line",
        fix="line 2 is an object",
        seed=lambda ground: lines(ground, 2, b'["the tree number one"]'),
        mend=lambda ground: lines(ground, 2, b'{"text": "the tree number one"}'),
    ),
    RunFailure(
        name="line-of-10-mb",
        layer=Layer.DATA,
        what="a line of 10 MB",
        reason=Reason.DATA_INVALID,
        place="rows.jsonl:3: the line is longer than 4 MiB; split it into rows, or check that the file has line ends",
        hint="Correct what the message lists, by file and line",
        fix="it was split into rows",
        seed=lambda ground: lines(ground, 3, b'{"text": "%s"}' % (b"a bird " * 1_500_000)),
        mend=lambda ground: lines(ground, 3, b"\n".join(b'{"text": "%s"}' % (b"a bird " * 20) for _ in range(20))),
    ),
    RunFailure(
        name="utf-16",
        layer=Layer.DATA,
        what="a file in UTF-16",
        reason=Reason.DATA_INVALID,
        place="rows.jsonl: the file is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
        hint="Correct what the message lists",
        fix="saved as UTF-8",
        seed=_in_utf_16,
        mend=_in_utf_8,
    ),
    RunFailure(
        name="nul-bytes",
        layer=Layer.DATA,
        what="NUL bytes in a line",
        reason=Reason.DATA_INVALID,
        place="rows.jsonl:4: has a NUL byte at byte 14 of the line; the file is damaged or not text",
        hint="Correct what the message lists, by file and line",
        fix="the line was taken out",
        seed=lambda ground: lines(ground, 4, b'{"text": "the\0\0\0"}'),
        mend=lambda ground: without_line(ground, 4),
    ),
    RunFailure(
        name="short-row-of-csv",
        layer=Layer.DATA,
        what="a row of CSV with a field too few",
        reason=Reason.DATA_INVALID,
        place="rows.csv:3: is too short: 1 field(s), and the header has 2",
        hint="Correct what the message lists, by file and line",
        fix="the row has both fields",
        seed=lambda ground: _csv(ground, "a tall bird"),
        mend=lambda ground: _csv(ground, "a tall bird,bird"),
    ),
    RunFailure(
        name="chat-without-roles",
        layer=Layer.DATA,
        what="a chat whose message has no role",
        reason=Reason.DATA_INVALID,
        place="rows.jsonl:2: messages[0] has no role; roles are system, developer, user, assistant, tool",
        hint="Correct what the message lists, by file and line",
        fix="`role: user`",
        seed=lambda ground: _chat(ground, {"content": QUESTION["content"]}),
        mend=lambda ground: _chat(ground, QUESTION),
    ),
    RunFailure(
        name="empty-turn-of-the-assistant",
        layer=Layer.DATA,
        what="a chat in which the assistant says nothing",
        reason=Reason.DATA_INVALID,
        place="rows.jsonl:2: messages[1] is an empty turn of the assistant; remove the row, or write what it says",
        hint="Correct what the message lists, by file and line",
        fix="the row was removed",
        seed=lambda ground: _chat(ground, QUESTION, answer=" "),
        mend=lambda ground: without_line(ground, 2),
    ),
    RunFailure(
        name="column-of-another-name",
        layer=Layer.DATA,
        what="the column has another name",
        reason=Reason.DATA_INVALID,
        place="has no field 'text'; it has 'body', 'id'. If the column has another name, set data.columns.text",
        hint="Correct what the message lists",
        fix="`data.columns: {text: body}`",
        seed=_other_column,
        mend=lambda ground: ground.edit({"spec.stages[0].data.columns": {"text": "body"}}),
    ),
    RunFailure(
        name="text-that-is-a-number",
        layer=Layer.DATA,
        what="a number where a text belongs",
        reason=Reason.DATA_INVALID,
        place="rows.jsonl:5: field 'text' is a number, not a string",
        hint="Correct what the message lists, by file and line",
        fix="line 5 has a text",
        seed=lambda ground: lines(ground, 5, b'{"text": 5}'),
        mend=lambda ground: lines(ground, 5, b'{"text": "five"}'),
    ),
    RunFailure(
        name="another-encoding",
        layer=Layer.DATA,
        what="a line in Latin-1",
        reason=Reason.DATA_INVALID,
        place="rows.jsonl:3: ",
        hint="Correct what the message lists, by file and line",
        fix="line 3 in UTF-8",
        seed=_latin,
        mend=lambda ground: lines(ground, 3, '{"text": "un petit café au coin de la rue"}'.encode()),
    ),
    RunFailure(
        name="row-too-long",
        layer=Layer.DATA,
        what="a row longer than `maxLength`, with `overflow: refuse`",
        reason=Reason.DATA_INVALID,
        place="rows.jsonl:4: ",
        hint="Correct what the message lists, by file and line",
        fix="the row was taken out",
        seed=_too_long,
        mend=lambda ground: without_line(ground, 4),
    ),
    RunFailure(
        name="formats-mixed",
        layer=Layer.DATA,
        what="a folder with files of two formats",
        reason=Reason.DATA_INVALID,
        place="spec.stages[0].data.train[0].uri: file://parts has files of more than one format",
        hint="Correct what the message lists",
        fix="the glob was narrowed",
        seed=_mixed,
        mend=lambda ground: ground.edit({"spec.stages[0].data.train": [{"uri": "file://parts/*.jsonl"}]}),
    ),
    RunFailure(
        name="empty-file",
        layer=Layer.DATA,
        what="an empty file",
        reason=Reason.DATA_EMPTY,
        place="rows.jsonl",
        hint="check the URI",
        fix="the URI of the file that was meant",
        seed=_empty,
        mend=lambda ground: ground.edit({"spec.stages[0].data.train": [{"uri": f"file://{ground.rows('meant.jsonl', rows()).name}"}]}),
    ),
    RunFailure(
        name="glob-without-match",
        layer=Layer.DATA,
        what="a glob that matches nothing",
        reason=Reason.DATA_EMPTY,
        place="spec.stages[0].data.train[0].uri: file://parts/*.parquet",
        hint="the glob and the format",
        fix="the glob of what is there",
        seed=_no_match,
        mend=lambda ground: ground.edit({"spec.stages[0].data.train": [{"uri": "file://parts/*.jsonl"}]}),
    ),
    RunFailure(
        name="nothing-left-to-train",
        layer=Layer.DATA,
        what="all rows are taken for validation",
        reason=Reason.DATA_EMPTY,
        place="spec.stages[0].data",
        hint="the share that is taken for validation",
        fix="no share is taken",
        seed=_tiny_fraction,
        mend=lambda ground: ground.edit({"spec.stages[0].data.validation": LEFT_OUT}),
    ),
    RunFailure(
        name="nothing-supervised",
        layer=Layer.DATA,
        what="prompts fill `maxLength`",
        reason=Reason.NOTHING_SUPERVISED,
        place="spec.stages[0].data.train[0]: stage domain",
        hint="raise training.maxLength",
        fix="`maxLength: 256`",
        seed=_long_prompts,
        mend=lambda ground: ground.edit({"spec.stages[0].training.maxLength": 256}),
    ),
    RunFailure(
        name="label-unknown",
        layer=Layer.DATA,
        what="a label that is not in `data.labels`",
        reason=Reason.LABEL_UNKNOWN,
        place="check.jsonl:5: label 'fish' is not in data.labels",
        hint="add it to data.labels and to the training data",
        fix="the label was added to both",
        seed=_classes,
        mend=_more_labels,
    ),
    RunFailure(
        name="validation-leaks",
        layer=Layer.DATA,
        what="validation rows are the training rows",
        reason=Reason.VALIDATION_LEAKS,
        place="spec.stages[0].data.validation",
        hint="or data.validation.fraction",
        fix="`data.validation: {fraction: 0.2}`",
        seed=_leaks,
        mend=lambda ground: ground.edit({"spec.stages[0].data.validation": {"fraction": 0.2}}),
    ),
    RunFailure(
        name="template-without-marks",
        layer=Layer.DATA,
        what="a chat template that rewrites earlier turns",
        reason=Reason.CHAT_TEMPLATE_UNSUPPORTED,
        place="rows.jsonl:1, 2, 3",
        hint="a template with {% generation %} markers around what the assistant says",
        fix="a template with the markers",
        seed=lambda ground: _chats(ground, REWRITES),
        mend=lambda ground: ground.edit({"spec.model.chatTemplate": CHATML_WITH_GENERATION}),
    ),
)
