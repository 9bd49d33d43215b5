"""Words for terminals: what a cluster said, made safe; ages; durations as people write them. Pure."""

from __future__ import annotations

import re
from datetime import datetime

LONGEST = 8_192
"""Characters of a line that are shown."""
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS, ...: titles, links, the clipboard
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def safe(text: str, longest: int = LONGEST) -> str:
    """A text that can do nothing to a terminal: without escape sequences, control characters and reordering, tab and line feed kept."""
    cut = len(text) - longest
    text = _SURROGATES.sub("�", _CONTROLS.sub("", _SEQUENCES.sub("", text[:longest])))
    return f"{text} … ({cut:,} characters more)" if cut > 0 else text


def safe_line(text: str) -> str:
    """One line of a log. Of a progress bar, which goes back to the line's beginning again and again, its last state."""
    states = [state for state in text.rstrip("\r\n").split("\r") if state]
    return safe(states[-1].replace("\n", " ")) if states else ""


def one_line(text: str) -> str:
    """A sentence of a status: safe, and on one line."""
    return " ".join(safe(text).split())


def age(then: datetime | None, now: datetime) -> str:
    """As kubectl has it: `45s`, `3m20s`, `2h5m`, `4d3h`."""
    if then is None:
        return "-"
    return span(max((now - then).total_seconds(), 0.0))


def span(seconds: float) -> str:
    """`45s`, `3m20s`, `2h5m`, `4d3h`: the two greatest units, without the second where it is nothing or the first is large."""
    whole = int(seconds)
    for (unit, size), (lower, below) in zip(list(_UNITS.items())[:-1], list(_UNITS.items())[1:], strict=True):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size}{unit}{rest}{lower}" if rest and whole < 10 * size else f"{whole // size}{unit}"
    return f"{whole}s"


def seconds_of(text: str) -> float | None:
    """What `90`, `90s`, `10m`, `1h30m` or `2d` means in seconds; None for anything else."""
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
