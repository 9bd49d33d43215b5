"""What a trainer's last words say. They may be missing, cut, someone else's, or the end of a log: nothing here ever raises."""

from __future__ import annotations

import functools
import re
from typing import Final

from pydantic import ValidationError

from finetune_api import constants as c
from finetune_api.shown import safe_line
from finetune_api.wire import ResultPage, RunResult, read_pages

MAX_LINE: Final = 512
_LONGEST_READ: Final = 8 * MAX_LINE
"""Characters of a line that are looked at: a token that begins within the first 512 is masked whole."""
MAX_RESULT: Final = 500_000
"""Characters of a result as JSON: an object of etcd's has 1.5 MB at most, and a status holds more than the result."""
_MOST: Final = {"stages": c.MAX_STAGES, "evaluation": c.MAX_GATES * 8, "artifacts": c.MAX_ARTIFACTS}
"""Entries that the schema of a status allows."""
_SECRET: Final = re.compile(r"(hf_[A-Za-z0-9]{6})[A-Za-z0-9]+|((?:Bearer|token|password)[ =:]+)[^\s\"']{8,}", re.IGNORECASE)


@functools.lru_cache(maxsize=64)  # each decision on an ended pod reads its message some four times
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


def fitting(result: RunResult | None) -> tuple[RunResult | None, str]:
    """Return as much of a result as a status may hold, and what to say of the rest; nothing where all of it fits."""
    if result is None:
        return None, ""
    counts = {name: (len(getattr(result, name)), most) for name, most in _MOST.items()}
    left_out = [f"{count - most} of {count} entries of {name}" for name, (count, most) in counts.items() if count > most]
    kept = result.model_copy(update={name: getattr(result, name)[:most] for name, most in _MOST.items()})
    if len(kept.model_dump_json(exclude_none=True)) > MAX_RESULT:
        kept = kept.model_copy(update={"stages": [], "evaluation": [], "provenance": None})
        left_out = ["stages, evaluation and provenance", *(each for each in left_out if each.endswith("artifacts"))]
    return kept, f"too large for a status were {', '.join(left_out)}: result.json in the run folder has them" if left_out else ""


def log_lines(message: str) -> list[str]:
    """Return the last lines of a log that stands in the place of a message; none of a message that was cut."""
    return [] if message.startswith("{") else tidy(message.splitlines())


def tidy(lines: list[str]) -> list[str]:
    """Return the last lines that say something, as long as a status may hold them, without terminal escapes, tokens masked."""
    said = [shown for line in lines if (shown := safe_line(line, _LONGEST_READ))]
    return [_SECRET.sub(lambda found: f"{found[1] or found[2]}…", line)[:MAX_LINE] for line in said[-c.MAX_LOG_LINES :]]
