"""How words and paths are shown, without importing rich: `validate` must start fast."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

Paint = Callable[[str, str], str]
_CODES = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "bold": "1", "dim": "2"}


def paint_for(stream: TextIO, environment: Mapping[str, str] = os.environ) -> Paint:
    """How to colour words on this stream: not at all where it is a file or a pipe, NO_COLOR is set, or the terminal is dumb."""
    return coloured if coloured_stream(stream, environment) else plain


def coloured_stream(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def plain(text: str, style: str) -> str:
    return text


def coloured(text: str, style: str) -> str:
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def shown(path: Path) -> str:
    """Relative to the current folder where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
