"""Every kind of bad row, file and source, with what its user is told. Messages must make sense alone: where, what, and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import Reason
from finetune_trainer.data.prepared import read_report
from finetune_trainer.errors import TrainerError
from finetune_trainer.run_folder import RunFolder

GOOD = {"text": "a whole sentence"}


def lines(*rows: object) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def chat(*messages: object) -> dict[str, object]:
    return {"messages": list(messages)}


USER = {"role": "user", "content": "Hello?"}
ANSWER = {"role": "assistant", "content": "Hello."}

FILES: list[tuple[str, str, str, bytes, Reason, str]] = [
    # what is wrong, objective, file, content, reason, message
    ("no JSON", "causalLanguageModeling", "a.jsonl", lines(GOOD, b'{"text": "a'), Reason.DATA_INVALID, "a.jsonl:2: is not JSON: Unterminated string starting at column 10"),
    ("NaN", "causalLanguageModeling", "a.jsonl", lines(b'{"text": NaN}'), Reason.DATA_INVALID, "a.jsonl:1: is not JSON: NaN is no JSON number"),
    ("one JSON array", "causalLanguageModeling", "a.jsonl", b'[\n{"text": "a"}\n]\n', Reason.DATA_INVALID, "a.jsonl:1: is not JSON: Expecting value at column 2; the file looks like one JSON array: write one object a line"),
    ("no object", "causalLanguageModeling", "a.jsonl", lines(GOOD, ["a"]), Reason.DATA_INVALID, 'a.jsonl:2: is an array, not an object like {"text": "…"}'),
    ("a string", "causalLanguageModeling", "a.jsonl", lines("a"), Reason.DATA_INVALID, "a.jsonl:1: is a string, not an object"),
    ("no field", "causalLanguageModeling", "a.jsonl", lines(GOOD, {"body": "x", "id": 1}), Reason.DATA_INVALID, "a.jsonl:2: has no field 'text'; it has 'body', 'id'. If the column has another name, set data.columns.text"),
    ("wrong type", "causalLanguageModeling", "a.jsonl", lines(GOOD, {"text": 3}), Reason.DATA_INVALID, "a.jsonl:2: field 'text' is a number, not a string"),
    ("null", "causalLanguageModeling", "a.jsonl", lines({"text": None}), Reason.DATA_INVALID, "a.jsonl:1: field 'text' is null, not a string"),
    ("half a surrogate pair", "causalLanguageModeling", "a.jsonl", lines(b'{"text": "\\ud83d"}'), Reason.DATA_INVALID, "a.jsonl:1: field 'text' holds a broken escape: one of \\ud800 to \\udfff without its other half, such as an emoji that was cut in two"),
    ("a NUL character", "causalLanguageModeling", "a.jsonl", lines({"text": "a\0"}), Reason.DATA_INVALID, "a.jsonl:1: field 'text' holds a NUL character"),
    ("NUL bytes", "causalLanguageModeling", "a.jsonl", lines(GOOD, b'{"text": "\0"}'), Reason.DATA_INVALID, "a.jsonl:2: has a NUL byte at byte 11 of the line; the file is damaged or not text"),
    ("Latin-1", "causalLanguageModeling", "a.jsonl", lines(GOOD, b'{"text": "caf\xe9"}'), Reason.DATA_INVALID, "a.jsonl:2: is not UTF-8: byte 0xe9 at byte 14 of the line; save the file as UTF-8"),
    ("UTF-16", "causalLanguageModeling", "a.jsonl", '{"text": "a"}\n'.encode("utf-16"), Reason.DATA_INVALID, "a.jsonl: the file is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    ("UTF-16 without a mark", "causalLanguageModeling", "a.jsonl", '{"text": "a"}\n'.encode("utf-16-le"), Reason.DATA_INVALID, "a.jsonl: the file looks like UTF-16 without a byte-order mark"),
    ("UTF-32", "causalLanguageModeling", "a.csv", "text\na\n".encode("utf-32"), Reason.DATA_INVALID, "a.csv: the file is UTF-32; save it as UTF-8"),
    ("a line of 10 MB", "causalLanguageModeling", "a.jsonl", lines(GOOD, {"text": "x" * 10_000_000}, GOOD), Reason.DATA_INVALID, "a.jsonl:2: the line is longer than 4 MiB; split it into rows, or check that the file has line ends"),
    ("an empty file", "causalLanguageModeling", "a.jsonl", b"", Reason.DATA_EMPTY, "a.jsonl: the file is empty"),
    ("blank lines only", "causalLanguageModeling", "a.jsonl", b"\n\n", Reason.DATA_EMPTY, "a.jsonl: has no row"),
    ("blank rows only", "causalLanguageModeling", "a.jsonl", lines({"text": " "}), Reason.NOTHING_SUPERVISED, "spec.stages[0].data.train[0]: stage a has nothing to learn from: all 1 rows are blank"),
    ("a short row", "causalLanguageModeling", "a.csv", b'id,text\n1,"a\nb"\n2\n', Reason.DATA_INVALID, "a.csv:4: is too short: 1 field(s), and the header has 2"),
    ("a long row", "causalLanguageModeling", "a.csv", b"id,text\n1,a,b\n", Reason.DATA_INVALID, "a.csv:2: is too long: 3 field(s), and the header has 2; a field that holds a comma needs double quotes around it"),
    ("an open quote", "causalLanguageModeling", "a.csv", b'id,text\n1,"a\n2,b\n', Reason.DATA_INVALID, 'a.csv:3: a quote (") that is opened above is never closed; the rest of the file was not read'),
    ("a stray quote", "causalLanguageModeling", "a.csv", b'text\n"a"b\n', Reason.DATA_INVALID, "a.csv:2: is not CSV: ',' expected after '\"'; the rest of the file was not read"),
    ("another column", "causalLanguageModeling", "a.csv", b"id,body\n1,a\n", Reason.DATA_INVALID, "a.csv:1: the header has none of the columns 'text'; it has 'id', 'body'; name the right one in data.columns"),
    ("semicolons", "causalLanguageModeling", "a.csv", b"id;text\n1;a\n", Reason.DATA_INVALID, "it seems to be separated by ';': only commas are read"),
    ("a column twice", "causalLanguageModeling", "a.csv", b"text,text\na,b\n", Reason.DATA_INVALID, "a.csv:1: the header has 'text' twice"),
    ("a header only", "causalLanguageModeling", "a.csv", b"text\n", Reason.DATA_EMPTY, "a.csv: has no row"),
    ("NUL bytes in CSV", "causalLanguageModeling", "a.csv", b"text\na\0\n", Reason.DATA_INVALID, "a.csv:2: has a NUL byte at byte 2 of the line"),
    ("no parquet", "causalLanguageModeling", "a.parquet", b"PAR1 not at all", Reason.DATA_INVALID, "a.parquet: is not a whole parquet file"),
    ("no chat", "supervised", "a.jsonl", lines({"messages": "Hello"}), Reason.DATA_INVALID, "a.jsonl:1: field 'messages' is a string, not an array of messages"),
    ("no roles", "supervised", "a.jsonl", lines(chat({"content": "Hi"}, ANSWER)), Reason.DATA_INVALID, "a.jsonl:1: messages[0] has no role; roles are system, developer, user, assistant, tool"),
    ("ShareGPT", "supervised", "a.jsonl", lines(chat({"from": "human", "value": "Hi"})), Reason.DATA_INVALID, "messages[0] has no role (it has 'from' and 'value': rename them to role and content)"),
    ("another role", "supervised", "a.jsonl", lines(chat({"role": "bot", "content": "Hi"})), Reason.DATA_INVALID, "a.jsonl:1: messages[0] has the role 'bot'; roles are"),
    ("an empty turn", "supervised", "a.jsonl", lines(chat(USER, ANSWER), chat(USER, {"role": "assistant", "content": " "})), Reason.DATA_INVALID, "a.jsonl:2: messages[1] is an empty turn of the assistant; remove the row, or write what it says"),
    ("no assistant", "supervised", "a.jsonl", lines(chat(USER)), Reason.DATA_INVALID, "a.jsonl:1: field 'messages' has no message of the assistant, so there is nothing to learn from it"),
    ("no content", "supervised", "a.jsonl", lines(chat({"role": "user"}, ANSWER)), Reason.DATA_INVALID, "a.jsonl:1: messages[0].content is missing"),
    ("content of parts", "supervised", "a.jsonl", lines(chat({"role": "user", "content": [{"type": "text"}]}, ANSWER)), Reason.DATA_INVALID, "messages[0].content is an array, not a string"),
    ("a message that is text", "supervised", "a.jsonl", lines(chat("Hello", ANSWER)), Reason.DATA_INVALID, "a.jsonl:1: messages[0] is a string, not an object with role and content"),
    ("neither chat nor pair", "supervised", "a.jsonl", lines({"question": "a", "answer": "b"}), Reason.DATA_INVALID, "a.jsonl:1: has neither 'messages' nor 'prompt' and 'completion'; it has 'question', 'answer'. If the columns have other names, set data.columns"),
    ("half a pair", "supervised", "a.jsonl", lines({"prompt": "a"}), Reason.DATA_INVALID, "a.jsonl:1: has no field 'completion'; it has 'prompt'"),
    ("an empty completion", "supervised", "a.jsonl", lines({"prompt": "a", "completion": ""}), Reason.DATA_INVALID, "a.jsonl:1: field 'completion' is empty"),
    ("no label", "classification", "a.jsonl", lines(GOOD), Reason.DATA_INVALID, "a.jsonl:1: has no field 'label'; it has 'text'"),
    ("a label that is true", "classification", "a.jsonl", lines({"text": "a", "label": True}), Reason.DATA_INVALID, "a.jsonl:1: field 'label' is true or false, not a string or a whole number"),
    ("an empty label", "classification", "a.jsonl", lines({"text": "a", "label": ""}), Reason.DATA_INVALID, "a.jsonl:1: field 'label' is empty; every row needs a label"),
    ("an empty text", "classification", "a.jsonl", lines({"text": "", "label": "x"}), Reason.DATA_INVALID, "a.jsonl:1: field 'text' is empty"),
    ("one label only", "classification", "a.jsonl", lines({"text": "a", "label": "x"}), Reason.DATA_INVALID, "all training rows have the label 'x': a classifier needs at least two"),
    ("plain text without columns", "supervised", "a.txt", b"hello\n", Reason.INVALID_SPEC, "plain text has no columns, and the objective supervised needs them: use jsonl, csv or parquet"),
    ("an unknown ending", "causalLanguageModeling", "a.dat", b"hello\n", Reason.DATA_INVALID, "the format of a.dat can't be told from its ending; write format: jsonl, csv, parquet or text"),
]  # fmt: skip


@pytest.mark.parametrize(("objective", "name", "content", "reason", "says"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_a_file(job: Any, objective: str, name: str, content: bytes, reason: Reason, says: str) -> None:
    with pytest.raises(TrainerError) as caught:
        job.prepare(job.file(name, content), objective)
    assert says in str(caught.value)
    assert caught.value.reason is reason


def test_rows_longer_than_max_length_are_listed_where_overflow_is_refuse(job: Any) -> None:
    uri = job.file("a.jsonl", [GOOD, {"text": "long " * 40}, GOOD, {"text": "longer " * 50}])
    with pytest.raises(
        TrainerError, match=r"(?s)2 problems.*a\.jsonl:2: has \d+ tokens, more than training\.maxLength 16.*a\.jsonl:4: has"
    ):
        job.prepare(uri, overflow="refuse", training={"maxLength": 16})


@pytest.mark.parametrize(
    ("objective", "overflow", "row", "says"),
    [
        ("supervised", "truncate", {"prompt": "word " * 60, "completion": "ok"}, "in 2 of 2 rows the prompt alone fills the first 16 tokens (training.maxLength), so no answer is left: raise it, or shorten the prompts"),
        ("supervised", "drop", {"prompt": "word " * 60, "completion": "ok"}, "2 of 2 rows are longer than maxLength 16, and overflow is drop"),
        ("causalLanguageModeling", "drop", {"text": "word " * 60}, "2 of 2 rows are longer than maxLength 16"),
    ],
)  # fmt: skip
def test_every_row_is_longer_than_max_length(job: Any, objective: str, overflow: str, row: dict[str, str], says: str) -> None:
    with pytest.raises(TrainerError) as caught:
        job.prepare(job.file("a.jsonl", [row, row]), objective, overflow=overflow, training={"maxLength": 16})
    assert says in str(caught.value)
    assert caught.value.reason is Reason.NOTHING_SUPERVISED


def test_rows_of_special_tokens_only(bert_job: Any) -> None:
    with pytest.raises(TrainerError, match="has nothing to learn from: 2 of 2 rows have no token to learn") as caught:
        bert_job.prepare(bert_job.file("a.jsonl", [{"text": "[MASK]"}, {"text": "[SEP]"}]), "maskedLanguageModeling")
    assert caught.value.reason is Reason.NOTHING_SUPERVISED


def test_max_length_beyond_the_models_positions(bert_job: Any) -> None:
    with pytest.raises(TrainerError, match=r"spec\.stages\[0\]\.training\.maxLength: 129 is more than the 128 positions"):
        bert_job.prepare(bert_job.file("a.jsonl", [GOOD]), "maskedLanguageModeling", training={"maxLength": 129})


def test_a_label_that_training_never_saw(job: Any) -> None:
    train = job.file("a.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    dev = job.file("dev.jsonl", [{"text": "c", "label": "x"}, {"text": "d", "label": "z"}])
    suite = {"name": "s", "objective": "classification", "data": {"uri": dev}, "metrics": ["accuracy"]}
    for options in ({"validation": {"uri": dev}}, {"suites": [suite]}):
        with pytest.raises(TrainerError) as caught:
            job.prepare(train, "classification", **options)
        assert str(caught.value) == "dev.jsonl:2: label 'z' does not occur in the training data, so it can't be predicted"
        assert caught.value.reason is Reason.LABEL_UNKNOWN


def test_a_label_that_is_not_listed(job: Any) -> None:
    uri = job.file("a.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "Y"}])
    with pytest.raises(TrainerError, match=r"a\.jsonl:2: label 'Y' is not in data\.labels") as caught:
        job.prepare(uri, "classification", labels=["x", "y"])
    assert caught.value.reason is Reason.LABEL_UNKNOWN


def test_validation_equal_to_training(job: Any) -> None:
    rows = [{"text": f"sentence {n}"} for n in range(4)]
    with pytest.raises(TrainerError, match=r"data\.validation: every one of the 4 validation rows is a training row too") as caught:
        job.prepare(job.file("a.jsonl", rows), validation={"uri": job.file("same.jsonl", rows[::-1])})
    assert caught.value.reason is Reason.VALIDATION_LEAKS


def test_a_fraction_that_leaves_nothing(job: Any) -> None:
    with pytest.raises(TrainerError, match=r"data\.validation\.fraction: 0\.001 of 2 rows leaves none for validation"):
        job.prepare(job.file("a.jsonl", [{"text": "a b"}, {"text": "b c"}]), validation={"fraction": 0.001})


def test_a_chat_for_a_model_without_a_template(make_job: Callable[[Path], Any], tiny_llama: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_llama, tmp_path / "plain"))
    config = json.loads((model / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    job = make_job(model)
    with pytest.raises(TrainerError, match=r"the model has no chat template; give one in model\.chatTemplate") as caught:
        job.prepare(job.file("a.jsonl", [chat(USER, ANSWER)]), "supervised")
    assert caught.value.reason is Reason.CHAT_TEMPLATE_UNSUPPORTED


def test_masked_language_modeling_without_a_mask_token(job: Any) -> None:
    with pytest.raises(TrainerError, match="the tokenizer has no mask token, which maskedLanguageModeling needs"):
        job.prepare(job.file("a.jsonl", [GOOD]), "maskedLanguageModeling")


def test_all_problems_of_all_sources_come_at_once_and_are_recorded(job: Any) -> None:
    job.file("a.jsonl", [GOOD, {"text": 1}, {"text": 2}])
    job.file("b.csv", b"text\nx,y\n")
    suite = {"name": "s", "objective": "supervised", "data": {"uri": job.file("c.jsonl", [chat(USER)])}, "metrics": ["loss"]}
    with pytest.raises(TrainerError) as caught:
        job.prepare([{"uri": "file://a.jsonl"}, {"uri": "file://b.csv"}], suites=[suite])
    assert str(caught.value) == (
        "4 problems:\n"
        "  a.jsonl:2, 3: field 'text' is a number, not a string\n"
        "  b.csv:2: is too long: 2 field(s), and the header has 1; a field that holds a comma needs double quotes around it\n"
        "  c.jsonl:1: field 'messages' has no message of the assistant, so there is nothing to learn from it"
    )
    report = read_report(RunFolder(job.run))
    assert report is not None
    assert report.error_count == 4
    assert [(problem.where, problem.lines) for problem in report.errors] == [("a.jsonl", [2, 3]), ("b.csv", [2]), ("c.jsonl", [1])]


def test_sources_that_are_missing_come_at_once(job: Any) -> None:
    with pytest.raises(TrainerError) as caught:
        job.prepare([{"uri": "file://no.jsonl"}, {"uri": "pvc://data/x"}], model={"uri": "file:///no/model"})
    assert "3 problems" in str(caught.value)
    assert "spec.model.uri: there is no folder /no/model" in str(caught.value)
    assert "spec.stages[0].data.train[0].uri: there is no file or folder" in str(caught.value)
    assert "spec.stages[0].data.train[1].uri: no folder is mounted under the name 'data'" in str(caught.value)
    assert caught.value.reason is Reason.SOURCE_NOT_FOUND


def test_thousands_of_different_problems_end_in_a_count(job: Any) -> None:
    uri = job.file(
        "a.jsonl", b"".join(b'{"text": "a", "label": "x"}\n{"text": "%d"}\n' % n for n in range(1000)) + lines(*[[n] for n in range(9)])
    )
    with pytest.raises(TrainerError) as caught:
        job.prepare(uri, "classification", labels=["y", "z"])
    message = str(caught.value)
    assert message.startswith("2009 problems:\n")
    assert "a.jsonl:2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24 and 988 more lines: has no field 'label'" in message
    assert message.count("\n") == 3
    assert caught.value.reason is Reason.DATA_INVALID


def test_at_most_fifty_different_problems_are_shown(job: Any) -> None:
    uri = job.file("a.jsonl", [{"text": "a", "label": f"label {n}"} for n in range(2000)])
    with pytest.raises(TrainerError) as caught:
        job.prepare(uri, "classification", labels=["y", "z"])
    shown = str(caught.value).splitlines()
    assert shown[0] == "2000 problems:"
    assert shown[50] == "  a.jsonl:50: label 'label 49' is not in data.labels"
    assert shown[51:] == ["  … and 1950 more"]
    report = read_report(RunFolder(job.run))
    assert report is not None
    assert (len(report.errors), report.error_count) == (1000, 2000)
