"""Files as streams of rows: one module a format, memory bounded by the longest row.

A row that can't be used is a Record with a problem, so that every problem of a file is found at once. FileProblem is for what ends the
reading of a file: the wrong encoding, no header, no parquet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from finetune_api.v1alpha1.data import DataFormat
from finetune_trainer.data.formats import csv, jsonl, parquet
from finetune_trainer.data.formats.record import FileProblem, Record

__all__ = ["ENDINGS", "FileProblem", "Record", "by_ending", "read_rows"]

ENDINGS: dict[DataFormat, tuple[str, ...]] = {
    DataFormat.JSONL: (".jsonl", ".ndjson"),
    DataFormat.CSV: (".csv",),
    DataFormat.PARQUET: (".parquet",),
    DataFormat.TEXT: (".txt", ".text", ".md"),
}

_READERS: dict[DataFormat, Callable[[Path, Sequence[str], list[str]], Iterator[Record]]] = {
    DataFormat.JSONL: jsonl.read,
    DataFormat.CSV: csv.read,
    DataFormat.PARQUET: parquet.read,
}


def by_ending(path: Path) -> DataFormat | None:
    """The format that a file's name ends in, if any."""
    return next((kind for kind, endings in ENDINGS.items() if path.name.lower().endswith(endings)), None)


def read_rows(path: Path, kind: DataFormat, columns: Sequence[str], notes: list[str]) -> Iterator[Record]:
    """The rows of a file (plain text has documents instead: `text.read`).

    columns: the names that are needed; where a file has a header and lacks them all, FileProblem says which it has. notes: filled with
    what was tolerated, such as a byte-order mark.
    """
    return _READERS[kind](path, columns, notes)
