"""In which order and company rows are trained on: packing, length groups, and mixing weights. Pure; the same inputs give the same order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.int64]

MEGA_BATCHES = 50
"""Batches that are sorted together when rows are grouped by length (as in transformers' LengthGroupedSampler)."""


def pack(lengths: Sequence[int] | npt.NDArray[np.integer], max_length: int) -> list[list[int]]:
    """Put rows into bins of at most max_length tokens by best fit decreasing; returns the rows of each bin.

    Every row comes once. Raises ValueError for a row longer than max_length.
    """
    sizes = np.asarray(lengths, np.int64)
    if len(sizes) and int(sizes.max()) > max_length:
        raise ValueError(f"a row of {int(sizes.max())} tokens does not fit into {max_length}")
    bins: list[list[int]] = []
    # Bins by the space that is left in them; `spaces` holds, sorted, the spaces that some bin has.
    by_space: dict[int, list[int]] = {}
    spaces: list[int] = []
    for row in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[row])
        at = bisect_left(spaces, size)
        if at == len(spaces):
            number, space = len(bins), max_length
            bins.append([row])
        else:
            space = spaces[at]
            waiting = by_space[space]
            number = waiting.pop()
            if not waiting:
                del by_space[space], spaces[at]
            bins[number].append(row)
        left = space - size
        if left > 0:
            if left not in by_space:
                by_space[left] = []
                insort(spaces, left)
            by_space[left].append(number)
    return bins


def group_by_length(lengths: Sequence[int] | npt.NDArray[np.integer], batch: int, seed: int) -> Longs:
    """A seeded order in which neighbours have similar lengths: shuffled, then sorted (longest first) within every 50 batches."""
    sizes = np.asarray(lengths, np.int64)
    order = np.random.default_rng(seed).permutation(len(sizes))
    window = batch * MEGA_BATCHES
    pieces = [order[start : start + window] for start in range(0, len(order), window)]
    sorted_pieces = [piece[np.argsort(-sizes[piece], kind="stable")] for piece in pieces]
    return np.concatenate(sorted_pieces) if sorted_pieces else np.empty(0, np.int64)


def select(
    sizes: Sequence[int] | npt.NDArray[np.integer],
    sources: Sequence[int] | npt.NDArray[np.integer],
    weights: Sequence[float | None],
    seed: int,
) -> Longs:
    """The rows of one epoch, so that each source has its share; in ascending order, a repeated row stands more than once.

    sizes: what a row counts (tokens; 1 each for classification). sources: which source each row is from. weights: one a source, all of
    them None (every row once) or all numbers. The epoch keeps the size of all sources together: a source with less than its share is
    repeated, one with more is thinned, by a seeded choice of rows.
    """
    counted, origin = np.asarray(sizes, np.int64), np.asarray(sources, np.int64)
    if all(weight is None for weight in weights):
        return np.arange(len(counted), dtype=np.int64)
    shares = np.asarray(weights, np.float64)
    present = np.asarray([bool((origin == number).any()) for number in range(len(weights))])
    shares = np.where(present, shares, 0.0)
    total = int(counted.sum())
    chosen = [
        _fill(np.flatnonzero(origin == number), counted, total * share / shares.sum(), np.random.default_rng([seed, number]))
        for number, share in enumerate(shares.tolist())
        if share > 0
    ]
    return np.sort(np.concatenate(chosen))


def _fill(rows: Longs, sizes: Longs, target: float, random: np.random.Generator) -> Longs:
    """Whole copies of the rows, then a random part of them, until their size is as near to the target as rows allow."""
    own = int(sizes[rows].sum())
    copies = int(target // own) if own else 0
    shuffled = random.permutation(rows)
    reached = np.concatenate([[0], np.cumsum(sizes[shuffled])])
    part = int(np.argmin(np.abs(reached - (target - copies * own))))
    return np.concatenate([np.tile(rows, copies), shuffled[:part]])
