"""One problem of a manifest, and how a nearest name is found."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Problem:
    """What is wrong, where, and what to write instead."""

    path: str
    """In the manifest's terms: spec.stages[0].training.learningRate; empty for the manifest as a whole."""
    message: str
    """What is wrong, in plain words, with what was found."""
    hint: str
    """What to write instead."""
    severity: Severity = Severity.ERROR
    location: tuple[str | int, ...] = field(default=(), compare=False, repr=False)
    """The path in parts."""
    meant: str = field(default="", compare=False, repr=False)
    """The field that an unknown name was probably meant to be."""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message}: {self.hint}" if self.hint else f"{where}{self.message}"


def plain(name: str) -> str:
    """Return a name without case, hyphens and underscores, so that learning_rate is learningRate."""
    return re.sub(r"[-_ ]", "", name).lower()


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that was probably meant, or None if nothing is near."""
    by_plain = {plain(candidate): candidate for candidate in names}
    word = plain(name)
    close = difflib.get_close_matches(word, by_plain, n=1, cutoff=0.65)
    if close:
        return by_plain[close[0]]
    parts = [candidate for candidate in by_plain if len(word) >= 4 and (word in candidate or candidate in word)]
    return by_plain[min(parts, key=len)] if parts else None
