"""Plain text: a file is one document, read in pieces that end at a line's end, so that memory doesn't follow the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finetune_trainer.data.formats.encoding import open_text, read_lines
from finetune_trainer.data.formats.record import FileProblem, Record

PIECE_CHARACTERS = 1 << 16
"""Pieces are tokenised one by one: this long, a token that spans two of them (there can be one at each line's end) doesn't matter."""


def read(path: Path, notes: list[str]) -> Iterator[Record]:
    """Pieces of the document as `{"text": …}`, with the line where each starts; together they are the whole file."""
    with open_text(path, notes) as stream:
        lines: list[str] = []
        length, start, size = 0, 1, 0
        for line in read_lines(stream, keep_ends=True):
            if line.problem is not None:
                raise FileProblem(line.problem, line.number)
            lines.append(line.text)
            length += len(line.text)
            size += line.size
            if length >= PIECE_CHARACTERS:
                yield Record(start, {"text": "".join(lines)}, None, size)
                lines, length, start, size = [], 0, line.number + 1, 0
        if lines:
            yield Record(start, {"text": "".join(lines)}, None, size)
