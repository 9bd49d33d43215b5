"""What a trainer's last words say. They may be missing, cut, someone else's, or the end of a log: nothing here ever raises."""

from __future__ import annotations

import re
from typing import Final

from pydantic import ValidationError

from finetune_api import constants as c
from finetune_api.shown import safe_line
from finetune_api.wire import ResultPage, RunResult, read_pages

MAX_LINE: Final = 512
_LONGEST_READ: Final = 8 * MAX_LINE
"""Characters of a line that are looked at: a token that begins within the first 512 is masked whole."""
_SECRET: Final = re.compile(r"(hf_[A-Za-z0-9]{6})[A-Za-z0-9]+|((?:Bearer|token|password)[ =:]+)[^\s\"']{8,}", re.IGNORECASE)


def read_result(message: str) -> RunResult | None:
    """Return the result in a termination message, None where it holds none that is whole."""
    try:
        return RunResult.model_validate_json(message) if message.startswith("{") else None
    except ValidationError:
        return None


def read_report(messages: list[str]) -> RunResult | None:
    """Return the result that a report pod's messages tell together, None where a page is missing or damaged."""
    try:
        return read_pages([ResultPage.model_validate_json(message) for message in messages])
    except ValueError:
        return None


def log_lines(message: str) -> list[str]:
    """Return the last lines of a log that stands in the place of a message; none of a message that was cut."""
    return [] if message.startswith("{") else tidy(message.splitlines())


def tidy(lines: list[str]) -> list[str]:
    """Return the last lines that say something, as long as a status may hold them, without terminal escapes, tokens masked."""
    said = [shown for line in lines if (shown := safe_line(line, _LONGEST_READ))]
    return [_SECRET.sub(lambda found: f"{found[1] or found[2]}…", line)[:MAX_LINE] for line in said[-c.MAX_LOG_LINES :]]
