"""JSON Lines: one object a line; blank lines are skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from finetune_trainer.data.formats.encoding import open_text, read_lines
from finetune_trainer.data.formats.record import Record

_KINDS = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "true or false", type(None): "null"}


def read(path: Path, columns: Sequence[str], notes: list[str]) -> Iterator[Record]:
    """One record a line that isn't blank. Columns are checked row by row, since every object may have others."""
    with open_text(path, notes) as stream:
        for line in read_lines(stream):
            if line.problem is not None:
                yield Record(line.number, {}, line.problem, line.size)
            elif not line.text.strip():
                continue
            else:
                yield _parse(line.number, line.text, line.size)


def _parse(number: int, text: str, size: int) -> Record:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        hint = "; the file looks like one JSON array: write one object a line" if number == 1 and text.lstrip().startswith("[") else ""
        return Record(number, {}, f"is not JSON: {error.msg.removesuffix(' at')} at column {error.colno}{hint}", size)
    except RecursionError:
        return Record(number, {}, "is nested too deeply", size)
    except ValueError as error:
        return Record(number, {}, f"is not JSON: {error}", size)
    if not isinstance(value, dict):
        return Record(number, {}, f'is {_KINDS[type(value)]}, not an object like {{"text": "…"}}', size)
    return Record(number, value, None, size)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
