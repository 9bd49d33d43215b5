"""Gives memory back that lists and bursts have left."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def give_back() -> Callable[[], object]:
    """What returns free pages between used ones to the system, in some milliseconds. glibc does so by itself at the heap's end only, and
    what a start reads lies below what is kept of it. Nothing where the C library is another one."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return lambda: None
    return lambda: trim(0)
