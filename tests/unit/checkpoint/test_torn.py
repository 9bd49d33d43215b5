"""Damaged checkpoints: any missing, emptied, shortened or flipped file is noticed, the one before is used, and it is said so."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune_api.constants import ExitCode, Reason
from finetune_trainer.checkpoint.manifest import MANIFEST
from finetune_trainer.errors import TrainerError
from tests.unit.checkpoint.runs import STAGE, begin, run_in, snapshot, store_of

FILES = [MANIFEST, *(name for name, _ in snapshot(1).files())]
Damage = Callable[[Path], Iterator[str]]


def missing(path: Path) -> Iterator[str]:
    path.unlink()
    yield "missing"


def zero_length(path: Path) -> Iterator[str]:
    path.write_bytes(b"")
    yield "zero length"


def truncated(path: Path) -> Iterator[str]:
    """At five places: one byte, the header (of a small file a quarter), the middle, three quarters, all but the last byte."""
    data = path.read_bytes()
    lengths = (1, min(8, len(data) // 4), len(data) // 2, 3 * len(data) // 4, len(data) - 1)
    assert len({*lengths}) == 5, f"{path.name} of {len(data)} bytes is cut in fewer than five places"
    for length in lengths:
        path.write_bytes(data[:length])
        yield f"cut to {length} of {len(data)} bytes"


def flipped(path: Path) -> Iterator[str]:
    """Twenty single bits, anywhere."""
    data = path.read_bytes()
    for bit in random.Random(path.name).sample(range(8 * len(data)), 20):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(broken))
        yield f"bit {bit} flipped"


def too_long(path: Path) -> Iterator[str]:
    path.write_bytes(path.read_bytes() + b"\n")
    yield "a byte too long"


DAMAGES: dict[str, Damage] = {
    "missing": missing,
    "zero length": zero_length,
    "truncated": truncated,
    "flipped bits": flipped,
    "too long": too_long,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(memory_folder: Path, file: str, damage: str) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run))
    store.commit(STAGE, 10, snapshot(10))
    store.commit(STAGE, 20, snapshot(20))
    broken = store.find(STAGE, 20).path
    for what in DAMAGES[damage](broken / file):
        epoch = begin(run)
        assert epoch.start is not None and epoch.start.step == 10, what
        assert [entry.path for entry in epoch.rejected] == [broken] and file in epoch.rejected[0].why, what
        shutil.rmtree(epoch.path)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_where_no_whole_one_is_left_the_run_ends_with_31(memory_folder: Path, file: str, damage: str) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run), keep=1)
    store.commit(STAGE, 10, snapshot(10))
    for what in DAMAGES[damage](store.find(STAGE, 10).path / file):
        with pytest.raises(TrainerError) as caught:
            begin(run)
        assert caught.value.reason is Reason.CHECKPOINT_INVALID and caught.value.exit_code == ExitCode.NO_CHECKPOINT == 31, what
        assert f"epochs/0001/stages/0-domain/checkpoint-00000010: {file}" in str(caught.value), what


def test_the_message_says_what_is_wrong_with_each(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run))
    store.commit(STAGE, 10, snapshot(10))
    store.commit(STAGE, 20, snapshot(20))
    (store.find(STAGE, 10).path / "weights.safetensors").unlink()
    (store.find(STAGE, 20).path / "progress.json").write_text("{}")
    with pytest.raises(TrainerError) as caught:
        begin(run)
    assert str(caught.value) == (
        f"{run.epochs}: every checkpoint that was saved here is damaged:"
        "\n  epochs/0001/stages/0-domain/checkpoint-00000020: progress.json has 2 bytes instead of 17"
        "\n  epochs/0001/stages/0-domain/checkpoint-00000010: weights.safetensors can't be read (No such file or directory)"
    )


def test_a_run_whose_checkpoints_were_deleted_does_not_start_anew_silently(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run))
    store.commit(STAGE, 10, snapshot(10))
    shutil.rmtree(store.find(STAGE, 10).path)
    with pytest.raises(TrainerError, match="every checkpoint that was saved here is gone") as caught:
        begin(run)
    assert caught.value.exit_code == 31


def test_a_run_that_committed_nothing_starts_from_the_beginning(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    begin(run)
    assert begin(run).start is None


def test_a_file_that_the_manifest_does_not_list_makes_a_checkpoint_invalid(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run))
    store.commit(STAGE, 10, snapshot(10))
    store.commit(STAGE, 20, snapshot(20))
    (store.find(STAGE, 20).path / "planted.safetensors").write_bytes(b"x")
    epoch = begin(run)
    assert epoch.start is not None and epoch.start.step == 10
    assert epoch.rejected[0].why == "planted.safetensors is not in its manifest"


def test_a_checkpoint_under_another_name_is_not_taken_for_it(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run))
    store.commit(STAGE, 10, snapshot(10))
    path = store.find(STAGE, 10).path
    shutil.copytree(path, path.with_name("checkpoint-00000030"))
    epoch = begin(run)
    assert epoch.start is not None and epoch.start.step == 10
    assert epoch.rejected[0].why == "its manifest is that of 0-domain/checkpoint-00000010"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_hand_over_gives_way_to_the_last_checkpoint_of_its_stage(memory_folder: Path, file: str, damage: str) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run))
    store.commit(STAGE, 10, snapshot(10))
    broken = store.commit_handover(STAGE, 10, snapshot(11)).path
    for what in DAMAGES[damage](broken / file):
        epoch = begin(run)
        assert epoch.start is not None and (epoch.start.stage, epoch.start.step) == (STAGE, 10), what
        assert epoch.handovers == {}, what
        assert [entry.path for entry in epoch.rejected] == [broken] and file in epoch.rejected[0].why, what
        shutil.rmtree(epoch.path)


def test_what_builds_on_a_damaged_hand_over_gives_way_with_it(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run))
    store.commit(STAGE, 10, snapshot(10))
    hand_over = store.commit_handover(STAGE, 10, snapshot(11))
    store.commit("1-task", 5, snapshot(5))
    (hand_over.path / "weights.safetensors").write_bytes(b"")
    epoch = begin(run)
    assert epoch.start is not None and (epoch.start.stage, epoch.start.step) == (STAGE, 10)
    assert [entry.why for entry in epoch.rejected] == [
        "weights.safetensors has 0 bytes instead of 320",
        "the hand-over of stage 0, which it builds on, is missing or damaged",
    ]


def test_a_damaged_lineage_ends_with_31_and_names_the_file(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    epoch = begin(run)
    store_of(epoch).commit(STAGE, 10, snapshot(10))
    path = epoch.path / "lineage.json"
    for _ in flipped(path):
        with pytest.raises(TrainerError, match=r"lineage\.json: the record of where this epoch started from is damaged") as caught:
            begin(run)
        assert caught.value.exit_code == 31
