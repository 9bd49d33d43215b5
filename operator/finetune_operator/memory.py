"""Gives memory back that lists and bursts have left."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Final

M_MMAP_THRESHOLD: Final = -3
LARGE: Final = 128 * 1024
"""Bytes."""


def map_large() -> None:
    """Have each large buffer mapped by itself: a page of a list goes back to the system when it was read, and of the 256 kB that a TLS connection
    has to read into, only what it ever filled is in memory. glibc begins like that too, but ceases with the first large buffer that is freed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)


def give_back() -> Callable[[], object]:
    """What looks for cycles, which is rarely done by itself, and returns free pages between used ones to the system, in some milliseconds. glibc
    does so by itself at the heap's end only, and what a start reads lies below what is kept of it. Only the former where the C library is another.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def back() -> None:
        gc.collect()
        if trim is not None:
            trim(0)

    return back
