"""A folder in memory for tests that save thousands of times: what they test is the order of the operations, not the disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=shared, prefix="finetune-test-"))
    yield folder
    shutil.rmtree(folder)
