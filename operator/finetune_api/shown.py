"""Texts that others wrote (a log, a file's name, a library's error), made fit to be shown: in a status, in a terminal, in JSON. Pure."""

from __future__ import annotations

import re
from typing import Final

from finetune_api.constants import DOCS_FAILURES, ClusterReason, Reason

_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])")
"""What moves a cursor, colours, or sets a terminal's title (ECMA-48)."""
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
"""Controls but tab and line feed, and marks that turn the direction of writing."""
_SURROGATES: Final = re.compile(r"[\ud800-\udfff]")
"""What a byte that is no UTF-8 becomes in a file's name; it can't be written."""
_EXPLAINED: Final = frozenset({*Reason, *ClusterReason})


def safe(text: str) -> str:
    """The text without terminal escapes and controls; what is no Unicode becomes �."""
    return _CONTROLS.sub("", _ESCAPES.sub("", _SURROGATES.sub("�", text)))


def safe_line(line: str, limit: int) -> str:
    """One line of at most `limit` characters. A carriage return begins it anew, as in a terminal: a progress bar leaves its last state."""
    return safe(line.rstrip().rpartition("\r")[2])[:limit].rstrip()


def page_of(reason: str) -> str:
    """Where the docs explain a reason of a failure, relative to the project; empty for a word that is none of the closed list."""
    return f"{DOCS_FAILURES}#{reason.lower()}" if reason in _EXPLAINED else ""
