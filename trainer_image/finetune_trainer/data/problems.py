"""Everything that is wrong with the data, collected until all of it was read: one message for all, bounded however bad the data is."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune_api.constants import REASONS, Reason
from finetune_trainer.data.report import Problem
from finetune_trainer.errors import TrainerError

SHOWN = 50
"""Different problems that a message lists; the rest are counted."""
LINES_SHOWN = 12
"""Lines that a message lists for one and the same problem of a file."""
KEPT = 1000
"""Different problems, and lines of each, that prepare.json lists."""


@dataclass
class _Group:
    reason: Reason
    lines: list[int] = field(default_factory=list)
    count: int = 0


class Problems:
    """Problems by file and message. The same mistake in every row is one entry with its first lines and a count."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], _Group] = {}
        self._first: Reason | None = None
        self._same = True
        self._hints: set[str] = set()
        self.count = 0

    def add(self, place: str, line: int | None, message: str, reason: Reason = Reason.DATA_INVALID, *, hint: str = "") -> None:
        """`place`: the file's name, or a field of the manifest; `line` counts from 1."""
        self.count += 1
        self._first = self._first or reason
        self._hints.add(hint or REASONS[reason].hint)
        self._same = self._same and reason is self._first
        key = (place, message)
        if key not in self._groups:
            if len(self._groups) >= KEPT:
                return
            self._groups[key] = _Group(reason)
        group = self._groups[key]
        group.count += 1
        if line is not None and len(group.lines) < KEPT:
            group.lines.append(line)

    def add_error(self, error: TrainerError) -> None:
        """A source that can't be had at all."""
        message = str(error).removeprefix(f"{error.where}: ")
        self.add(error.where or "spec", None, message, error.reason, hint=error.hint)

    def listed(self) -> list[Problem]:
        """The problems for prepare.json, in the order in which they were met."""
        return [
            Problem(where=place, lines=group.lines, message=message, count=group.count) for (place, message), group in self._groups.items()
        ]

    def raise_if_any(self) -> None:
        """Raise one TrainerError for all: with the reason that they share, or DataInvalid."""
        if self._first is None:
            return
        problems = self.listed()[:SHOWN]
        hint = next(iter(self._hints)) if len(self._hints) == 1 else None
        if self.count == 1:
            raise TrainerError(self._first, problems[0].message, where=_where(problems[0]), hint=hint)
        lines = [f"{_where(problem)}: {problem.message}" for problem in problems]
        hidden = self.count - sum(problem.count for problem in problems)
        if hidden:
            lines.append(f"… and {hidden} more")
        text = f"{self.count} problems:\n  " + "\n  ".join(lines)
        raise TrainerError(self._first if self._same else Reason.DATA_INVALID, text, hint=hint)


def _where(problem: Problem) -> str:
    if not problem.lines:
        return problem.where
    shown = problem.lines[:LINES_SHOWN]
    more = problem.count - len(shown)
    return f"{problem.where}:{', '.join(map(str, shown))}" + (f" and {more} more lines" if more else "")
