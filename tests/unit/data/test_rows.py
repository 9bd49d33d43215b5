"""Rows that were written come back as they were, through views too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune_trainer.data.rows import Encoded, Part, RowSet, RowSetWriter, Supervision


def write(folder: Path, rows: list[Encoded], *, vocabulary: int = 300, supervision: Supervision = "all", **meta: object) -> Path:
    folder.mkdir()
    with RowSetWriter(folder, vocabulary=vocabulary, supervision=supervision) as writer:
        for line, row in enumerate(rows, start=1):
            writer.write(row, line=line)
        writer.close(**meta)
    return folder


def row(*tokens: int, **fields: int) -> Encoded:
    return Encoded(np.asarray(tokens, np.int32), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("vocabulary", [1 << 16, (1 << 16) + 1])
def test_tokens_come_back(tmp_path: Path, vocabulary: int) -> None:
    rows = RowSet.open(write(tmp_path / "a", [row(1, 2, 3), row(vocabulary - 1)], vocabulary=vocabulary))
    assert [rows.tokens(i).tolist() for i in range(2)] == [[1, 2, 3], [vocabulary - 1]]
    assert rows.tokens(0).dtype == np.int32
    assert rows.lengths.tolist() == [3, 1]


def test_parts_are_laid_end_to_end_and_a_view_may_repeat_rows(tmp_path: Path) -> None:
    both = RowSet.open(write(tmp_path / "a", [row(1), row(2)]), write(tmp_path / "b", [row(3, 3), row(4)]))
    view = both.subset(np.asarray([3, 0, 0, 2])).subset(np.asarray([0, 2, 3]))
    assert [view.tokens(i).tolist() for i in range(len(view))] == [[4], [1], [3, 3]]
    assert view.lengths.tolist() == [1, 1, 2]
    assert view.sources.tolist() == [1, 0, 1]
    with pytest.raises(IndexError):
        view.tokens(3)


@pytest.mark.parametrize(
    ("supervision", "expected", "count"), [("all", [True, True], 2), ("none", [False, False], 0), ("mask", [False, True], 1)]
)
def test_supervision(tmp_path: Path, supervision: Supervision, expected: list[bool], count: int) -> None:
    written = Encoded(np.asarray([5, 6], np.int32), supervised=np.asarray([False, True]))
    rows = RowSet.open(write(tmp_path / "a", [written], supervision=supervision))
    assert rows.supervised(0).tolist() == expected
    assert rows.supervised_counts.tolist() == [count]


def test_columns_ids_and_places(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", [row(1, label=1, prompt_length=7, content=255, input=9), row(2, label=0)], labels=["no", "yes"])
    rows = RowSet([Part(folder, ["x.jsonl"], labels=["yes", "maybe", "no"])])
    assert [rows.label(0), rows.label(1)] == [0, 2]
    assert rows.prompt_length(0) == 7
    assert rows.id(0) == "00000000000000ff"
    assert rows.inputs.tolist() == [9, 0]
    assert rows.where(1) == "x.jsonl:2"


def test_more_rows_than_one_flush(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    with RowSetWriter(folder, vocabulary=300, supervision="all") as writer:
        for number in range(70_000):
            writer.write(row(number % 251, number % 7))
        assert writer.tokens == 140_000
        writer.close()
    rows = RowSet.open(folder)
    assert len(rows) == 70_000
    assert rows.tokens(69_999).tolist() == [69_999 % 251, 69_999 % 7]


def test_an_empty_part(tmp_path: Path) -> None:
    rows = RowSet.open(write(tmp_path / "a", []))
    assert len(rows) == 0
    assert rows.lengths.tolist() == []


def test_a_part_that_lost_bytes_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", [row(1, 2, 3)])
    (folder / "tokens.bin").write_bytes(b"12")
    with pytest.raises(ValueError, match="expected 6"):
        Part(folder)
