"""Which rows validate. By a hash of the row's input, so that a row's side stays the same when rows are added, removed or moved."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune_trainer.data.rows import RowSet

_SCALE = float(1 << 53)


def split(rows: RowSet, fraction: float) -> tuple[RowSet, RowSet]:
    """Training and validation rows. Rows with the same input (text, or prompt) fall on the same side, so none leaks to the other;
    augmented copies of a validation row are on neither."""
    validates = chosen(rows.inputs, fraction)
    return rows.subset(np.flatnonzero(~validates)), rows.subset(np.flatnonzero(validates & ~rows.copies))


def chosen(inputs: npt.NDArray[np.uint64], fraction: float) -> npt.NDArray[np.bool_]:
    """Whether each row validates: its hash, read as a number between 0 and 1, is below the fraction."""
    return np.asarray((inputs >> np.uint64(11)).astype(np.float64) / _SCALE < fraction)
