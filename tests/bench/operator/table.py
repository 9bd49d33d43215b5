"""Figures beside their targets."""

from __future__ import annotations

from collections.abc import Callable


class Table:
    """Prints each figure with its target, and keeps whether all are met."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.met = True

    def most(self, text: str, found: float, most: float) -> bool:
        """Print a figure that is to be at most so much. Returns whether it is."""
        met = found <= most
        self.met &= met
        self._say(f"{'met   ' if met else 'MISSED'} {text}; at most {most:g}")
        return met

    @property
    def code(self) -> int:
        """The exit code: 1 where a target is missed."""
        return 0 if self.met else 1
