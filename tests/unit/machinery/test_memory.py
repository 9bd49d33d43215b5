"""What memory is given back after a list."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from finetune_operator.memory import give_back

PIECES, BYTES, KEPT = 40_000, 1500, 20


def resident() -> float:
    """Of this process, in MB."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1000


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_holes_between_what_is_kept_go_back_to_the_system() -> None:
    pieces = [bytes(BYTES) for _ in range(PIECES)]
    kept = pieces[::KEPT]
    del pieces
    before = resident()
    give_back()()
    assert before - resident() > PIECES * BYTES / 1e6 / 3
    assert len(kept) == PIECES // KEPT
