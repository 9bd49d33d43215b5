"""Whether training waits for its data: the share of the last minutes of training that went by while rows were read and put into batches."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

WINDOW_SECONDS: Final = 300.0
LEAST_SECONDS: Final = 120.0
LEAST_STEPS: Final = 20
BOUND_SHARE: Final = 0.30
FREE_SHARE: Final = 0.20
"""It is over below this share; between the two it stays what it was."""
PIECE_SECONDS: Final = 10.0


class Piece(NamedTuple):
    """Some steps in a row."""

    seconds: float
    """Of training, saves and evaluations apart."""
    waited: float
    """Of these, for data."""
    steps: int


class DataShare:
    """Steps of the last five minutes. `bound`: the share that was waited, as long as it is too much; else None."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self._newest = Piece(0.0, 0.0, 0)
        self.bound: float | None = None

    def add(self, seconds: float, waited: float) -> bool:
        """Take a step. Returns whether it began or ceased to be too much."""
        newest = self._newest
        self._newest = Piece(newest.seconds + seconds, newest.waited + waited, newest.steps + 1)
        if self._newest.seconds < PIECE_SECONDS:
            return False
        self._pieces.append(self._newest)
        self._newest = Piece(0.0, 0.0, 0)
        while sum(piece.seconds for piece in self._pieces) - self._pieces[0].seconds >= WINDOW_SECONDS:
            self._pieces.popleft()
        before, self.bound = self.bound, judged(list(self._pieces), before=self.bound)
        return (before is None) is not (self.bound is None)


def judged(pieces: list[Piece], *, before: float | None) -> float | None:
    """Return the share that was waited where it is too much, None where it is not. before: what it was. Pure."""
    seconds = sum(piece.seconds for piece in pieces)
    if seconds < LEAST_SECONDS or sum(piece.steps for piece in pieces) < LEAST_STEPS:
        return before
    share = sum(piece.waited for piece in pieces) / seconds
    return share if share >= (BOUND_SHARE if before is None else FREE_SHARE) else None
