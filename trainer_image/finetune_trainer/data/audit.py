"""What the tokenised rows are like: duplicates, leakage from training into what is measured, class balance. Pure, over the rows' hashes.

Memory is bounded by the measured sets and by a slice of the training set: hashes of training rows are mapped, and read in slices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune_trainer.data.report import Leak, SetReport, SourceReport
from finetune_trainer.data.rows import Hashes, RowSet
from finetune_trainer.data.tokenise import count_lengths, histogram

SLICE = 4_000_000
"""Hashes that are sorted at once: 32 MB."""
EXAMPLES = 5


def describe(rows: RowSet, sources: Sequence[SourceReport], labels: list[str] | None) -> SetReport:
    """The report of one set. `sources`: those that it was read from, for the shares of what was cut or dropped there."""
    lengths = rows.lengths
    tokens = int(lengths.sum(dtype=np.int64))
    read = max(sum(source.read_rows for source in sources), 1)
    used = max(sum(source.rows for source in sources), 1)
    dropped = sum(source.dropped_long + source.dropped_unsupervised for source in sources)
    return SetReport(
        rows=len(rows),
        tokens=tokens,
        mean_length=tokens / max(len(rows), 1),
        longest=int(lengths.max(initial=0)),
        supervised_share=int(rows.supervised_counts.sum(dtype=np.int64)) / max(tokens, 1),
        truncated_share=sum(source.truncated for source in sources) / used,
        dropped_share=dropped / read,
        histogram=histogram(count_lengths(lengths)),
        exact_duplicates=duplicates(rows.contents),
        classes={} if labels is None else class_counts(rows, labels),
    )


def duplicates(contents: Hashes, *, at_once: int = SLICE) -> int:
    """Rows that repeat an earlier one. Hashes are spread evenly, so ranges of them are sorted one after the other."""
    ranges = max(1, -(-len(contents) // at_once))
    if ranges == 1:
        return len(contents) - len(np.unique(contents))
    width = (1 << 64) // ranges + 1
    distinct = 0
    for number in range(ranges):
        low, high = np.uint64(number * width), np.uint64(min((number + 1) * width, 1 << 64) - 1)
        pieces = [contents[at : at + at_once] for at in range(0, len(contents), at_once)]
        distinct += len(np.unique(np.concatenate([piece[(piece >= low) & (piece <= high)] for piece in pieces])))
    return len(contents) - distinct


def found_in(measured: Hashes, training: Hashes, *, at_once: int = SLICE) -> npt.NDArray[np.bool_]:
    """Which of the measured hashes stand in the training set, bool [measured]."""
    values, inverse = np.unique(measured, return_inverse=True)
    hit = np.zeros(len(values), np.bool_)
    for at in range(0, len(training) if len(values) else 0, at_once):
        piece = np.asarray(training[at : at + at_once])
        place = np.minimum(np.searchsorted(values, piece), len(values) - 1)
        hit[place[values[place] == piece]] = True
    return np.asarray(hit[inverse])


def leak(name: str, measured: RowSet, stage: str, training: RowSet) -> Leak | None:
    """How much of a measured set stands in a stage's training rows; None where nothing does."""
    same_input = found_in(measured.inputs, training.inputs)
    if not same_input.any():
        return None
    return Leak(
        measured=name,
        stage=stage,
        exact=int(found_in(measured.contents, training.contents).sum()),
        input=int(same_input.sum()),
        share=float(same_input.mean()),
        examples=[measured.where(int(row)) for row in np.flatnonzero(same_input)[:EXAMPLES]],
    )


def class_counts(rows: RowSet, labels: list[str]) -> dict[str, int]:
    """Rows a class, in the labels' order."""
    counts = np.bincount(rows.labels[rows.labels >= 0], minlength=len(labels))
    return {label: int(count) for label, count in zip(labels, counts.tolist(), strict=True)}
