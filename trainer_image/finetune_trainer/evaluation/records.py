"""What is kept of a measured suite: a few numbers a row, never logits. They carry every metric, every interval and every paired difference."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowRecords:
    """One entry a row of the suite, in the suite's order. R is the number of rows."""

    ids: npt.NDArray[np.str_]
    """(R,) the rows' content hashes: two records can be paired only where these agree."""
    nll: Floats
    """(R,) summed negative log-likelihood of the predicted tokens (of the label, for classification), in nats."""
    tokens: Ints
    """(R,) predicted tokens; 1 for classification."""
    correct: Ints
    """(R,) of these, how many were the likeliest."""
    bytes: Ints
    """(R,) UTF-8 bytes of the text of the predicted tokens: what makes different vocabularies comparable. 0 for classification."""
    exact: Ints
    """(R,) whether the generated completion was the reference: 0, 1, or -1 where none was generated."""
    truth: Ints
    """(R,) index of the true class; -1 outside classification."""
    predicted: Ints
    """(R,) index of the likeliest class; -1 outside classification."""

    @classmethod
    def empty(cls, ids: list[str]) -> RowRecords:
        """Records to be filled in batch by batch."""
        return cls(
            ids=np.array(ids, dtype=np.str_),
            nll=np.zeros(len(ids), dtype=np.float64),
            tokens=_filled(len(ids), 0),
            correct=_filled(len(ids), 0),
            bytes=_filled(len(ids), 0),
            exact=_filled(len(ids), -1),
            truth=_filled(len(ids), -1),
            predicted=_filled(len(ids), -1),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def save(self, path: Path) -> None:
        """Write them as a compressed .npz without pickles; there after a crash or not there at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as file:
            columns: dict[str, npt.NDArray[Any]] = {field.name: getattr(self, field.name) for field in fields(self)}
            np.savez_compressed(file, allow_pickle=False, **columns)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> RowRecords:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{field.name: file[field.name] for field in fields(cls)})


def _filled(rows: int, value: int) -> Ints:
    return np.full(rows, value, dtype=np.int64)
