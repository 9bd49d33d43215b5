"""What the readers of all formats share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

MAX_ROW_BYTES = 4 * 1024 * 1024
"""The longest line, field or row that is read: memory must not follow a broken file. About a million tokens, which is also the greatest
maxLength; tokenising takes about 150 bytes a character."""


class Record(NamedTuple):
    """A row with its place, or what is wrong with it."""

    line: int
    """Counted from 1, where the row starts; the row's number for parquet."""
    row: dict[str, Any]
    problem: str | None = None
    size: int = 0
    """Bytes of the file that it took, for progress."""


class FileProblem(Exception):
    """A file that can't be read on. `line`: where, if known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Names for a message, cut to a sensible number."""
    shown = [repr(name) for name in names]
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "")
