"""What memory is given back after a list."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_operator.memory import give_back
from tests.procfs import memory

ROOT = Path(__file__).resolve().parents[3]
PIECES, BYTES, KEPT = 40_000, 1500, 20


def resident() -> float:
    """Of this process, in MB."""
    return memory("VmRSS") / 1000


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_holes_between_what_is_kept_go_back_to_the_system() -> None:
    pieces = [bytes(BYTES) for _ in range(PIECES)]
    kept = pieces[::KEPT]
    del pieces
    before = resident()
    give_back()()
    assert before - resident() > PIECES * BYTES / 1e6 / 3
    assert len(kept) == PIECES // KEPT


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
@pytest.mark.parametrize(("mapped", "left"), [(True, range(5)), (False, range(60, 100))], ids=["mapped apart", "as it comes"])
def test_large_buffers_go_back_to_the_system_when_they_are_freed(mapped: bool, left: range) -> None:
    """Also after a larger one was: glibc has them in its heap from then on, where what is kept between them holds them."""
    script = f"""
from finetune_operator.memory import map_large
from tests.unit.machinery.test_memory import resident
if {mapped}:
    map_large()
for _ in range(3):
    larger = b"x" * 4_000_000
    del larger
before = resident()
buffers, kept = [], []
for _ in range(400):
    buffers.append(b"x" * 200_000)
    kept.append(bytes(1000))
del buffers
print(resident() - before)
"""
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(float(found.stdout)) in left
