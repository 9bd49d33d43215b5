"""Good files of every format and encoding: the same rows, with the right lines."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_api.v1alpha1.data import DataFormat
from finetune_trainer.data.formats import read_rows, text
from finetune_trainer.tokenizer import load_tokenizer


def parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (DataFormat.JSONL, '{"text": "é"}\r\n\n{"text": "b", "more": 1}'.encode(), [(1, {"text": "é"}), (3, {"text": "b", "more": 1})]),
        (DataFormat.CSV, b'id,text\r\n1,"a, ""b""\nc"\r\n\r\n2,d', [(2, {"id": "1", "text": 'a, "b"\nc'}), (5, {"id": "2", "text": "d"})]),
        (DataFormat.PARQUET, parquet([{"text": "a", "id": 1}, {"text": "b", "id": 2}]), [(1, {"text": "a"}), (2, {"text": "b"})]),
    ],
)
def test_rows_and_their_lines(tmp_path: Path, kind: DataFormat, content: bytes, expected: list[tuple[int, dict[str, Any]]]) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    notes: list[str] = []
    assert [(record.line, record.row) for record in read_rows(path, kind, ["text"], notes)] == expected
    assert notes == []


@pytest.mark.parametrize(("kind", "content"), [(DataFormat.JSONL, '{"text": "a"}\n'), (DataFormat.CSV, "text\na\n")])
def test_a_byte_order_mark_is_skipped_and_noted(tmp_path: Path, kind: DataFormat, content: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content.encode("utf-8-sig"))
    notes: list[str] = []
    assert [record.row for record in read_rows(path, kind, ["text"], notes)] == [{"text": "a"}]
    assert notes == ["starts with a UTF-8 byte-order mark, which was skipped"]


def test_a_mark_is_noted_in_the_report(job: Any) -> None:
    report = job.prepare(job.file("a.jsonl", '\ufeff{"text": "a cat"}\n')).report
    assert report.stages[0].sources[0].files[0].notes == ["starts with a UTF-8 byte-order mark, which was skipped"]
    assert report.warnings == ["a.jsonl starts with a UTF-8 byte-order mark, which was skipped"]


def test_a_field_larger_than_the_csv_modules_default(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text\n" + "x" * 1_000_000 + "\n")
    assert [len(record.row["text"]) for record in read_rows(path, DataFormat.CSV, ["text"], [])] == [1_000_000]


def test_parquet_has_chats_and_many_row_groups(job: Any) -> None:
    rows = [{"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Ho"}]} for n in range(2000)]
    train = job.prepare(job.file("a.parquet", parquet(rows, row_group_size=300)), "supervised").stages["a"].train
    assert len(train) == 2000
    assert train.where(1999) == "a.parquet:2000"


def test_plain_text_is_cut_in_rows_of_the_greatest_length(job: Any) -> None:
    book = "".join(f"Line {n} is about cats and dogs.\n" for n in range(6000))
    prepared = job.prepare(job.file("book.txt", book), training={"maxLength": 64})
    rows = prepared.stages["a"].train
    assert set(rows.lengths[:-1].tolist()) == {64}
    tokenizer = load_tokenizer(prepared.tokenizer_folder, job.config("file://book.txt").spec)
    joined = "".join(tokenizer.decode(rows.tokens(i)) for i in range(len(rows)))
    assert joined == book + "<|im_end|>"
    assert prepared.report.stages[0].sources[0].read_rows == 1


def test_masked_chunks_have_their_frame(bert_job: Any) -> None:
    bert_job.file("texts/a.txt", "a cat " * 40)
    bert_job.file("texts/b.md", "a dog")
    bert_job.file("texts/_SUCCESS", "")
    prepared = bert_job.prepare("file://texts", "maskedLanguageModeling", training={"maxLength": 16})
    rows = prepared.stages["a"].train
    assert max(rows.lengths) == 16
    assert all(rows.tokens(i)[0] == rows.tokens(0)[0] and rows.tokens(i)[-1] == rows.tokens(0)[-1] for i in range(len(rows)))
    assert prepared.report.stages[0].sources[0].read_rows == 2


def test_text_comes_in_pieces_that_are_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = "a line\r\n" * 30_000 + "the end"
    path.write_bytes(content.encode())
    pieces = list(text.read(path, []))
    assert "".join(piece.row["text"] for piece in pieces) == content
    assert len(pieces) > 2
    assert sum(piece.size for piece in pieces) == len(content)
