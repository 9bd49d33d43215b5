"""CSV as RFC 4180 has it: a header, commas, fields in double quotes may hold commas and line ends. Every field is a string."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune_trainer.data.formats.encoding import Line, open_text, read_lines
from finetune_trainer.data.formats.record import MAX_ROW_BYTES, FileProblem, Record, listed


def read(path: Path, columns: Sequence[str], notes: list[str]) -> Iterator[Record]:
    """One record a row; a row that starts at line 7 and holds a quoted line end is at line 7."""
    # The default of 128 KiB is too small for documents; it also bounds what an unclosed quote can swallow.
    csv.field_size_limit(MAX_ROW_BYTES)
    with open_text(path, notes) as stream:
        source = _Source(read_lines(stream, keep_ends=True))
        rows = csv.reader(source, strict=True)
        header = _next(rows, source)
        if header is None:
            return
        _check_header(header, columns)
        start = source.line
        while (fields := _next(rows, source)) is not None:
            number, size, start = start + 1, source.take(), source.line
            if not fields:
                continue
            yield _record(number, header, fields, size)


class _Source:
    """Feeds lines to the csv module and keeps count. A line that can't be used ends the file: a quote may be open across it."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._size = 0
        self._since = 0
        self.line = 0

    def __iter__(self) -> _Source:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.line = line.number
        if line.problem is not None:
            raise FileProblem(f"{line.problem}; the rest of the file was not read", line.number)
        self._size += line.size
        self._since += line.size
        if self._since > MAX_ROW_BYTES:
            raise FileProblem(_UNCLOSED, line.number)
        return line.text

    def take(self) -> int:
        """Bytes since the last call."""
        size, self._size, self._since = self._size, 0, 0
        return size


_UNCLOSED = f'a row is longer than {MAX_ROW_BYTES // (1024 * 1024)} MiB: a quote (") that is opened above is never closed'


def _next(rows: Iterator[list[str]], source: _Source) -> list[str] | None:
    try:
        return next(rows, None)
    except csv.Error as error:
        unclosed = "unexpected end of data" in str(error) or "field larger" in str(error)
        message = 'a quote (") that is opened above is never closed' if unclosed else f"is not CSV: {error}"
        raise FileProblem(f"{message}; the rest of the file was not read", source.line) from None


def _check_header(header: list[str], columns: Sequence[str]) -> None:
    twice = {name for name in header if header.count(name) > 1}
    if twice & set(columns):
        raise FileProblem(f"the header has {listed(sorted(twice & set(columns)))} twice", 1)
    if not set(columns) & set(header):
        other = next((mark for mark in (";", "\t", "|") if len(header) == 1 and mark in header[0]), None)
        hint = f"; it seems to be separated by {other!r}: only commas are read" if other else "; name the right one in data.columns"
        raise FileProblem(f"the header has none of the columns {listed(columns)}; it has {listed(header)}{hint}", 1)


def _record(number: int, header: list[str], fields: list[str], size: int) -> Record:
    if len(fields) != len(header):
        word, hint = ("short", "") if len(fields) < len(header) else ("long", "; a field that holds a comma needs double quotes around it")
        return Record(number, {}, f"is too {word}: {len(fields)} field(s), and the header has {len(header)}{hint}", size)
    return Record(number, dict(zip(header, fields, strict=True)), None, size)
