"""What counts as an advance: whatever a run can be busy with for long beats on its way. Downloads: tests/unit/data/test_hub.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune_api.wire import Activity
from finetune_trainer.attention import Attentive
from finetune_trainer.checkpoint.files import CHUNK, FileLayer, read_chunks
from finetune_trainer.data.hashes import FileHashes
from finetune_trainer.progress import NullReporter
from finetune_trainer.pulse import PULSE


def _saved(folder: Path) -> Iterator[object]:
    files = FileLayer()
    descriptor = files.open_new(folder / "new")
    for _ in range(3):
        yield files.write(descriptor, folder / "new", bytes(CHUNK))
    files.close(descriptor, folder / "new")


def _verified(folder: Path) -> Iterator[object]:
    (folder / "file").write_bytes(bytes(3 * CHUNK))
    yield from read_chunks(folder / "file")


def _hashed(folder: Path) -> Iterator[object]:
    (folder / "file").write_bytes(bytes(CHUNK))
    yield FileHashes(folder / "index.json").sha256(folder / "file")


def _reported(folder: Path) -> Iterator[object]:
    reporter = Attentive(NullReporter())
    for done in range(3):
        yield reporter.report(Activity.EVALUATE, done=done, unit="rows")


@pytest.mark.parametrize("busy", [_saved, _verified, _hashed, _reported], ids=lambda busy: busy.__name__.strip("_"))
def test_each_piece_is_a_beat(busy: Callable[[Path], Iterator[object]], tmp_path: Path) -> None:
    before = PULSE.at
    moments = [PULSE.at for _ in busy(tmp_path)]
    assert [before, *moments] == sorted({before, *moments}), "later with each"
