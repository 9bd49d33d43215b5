"""A process that dies, or a machine that loses power, between any two operations of a save: never a damaged checkpoint, never a lost commit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finetune_api.constants import Reason
from finetune_trainer.checkpoint.epochs import Epoch
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.journal import Event
from finetune_trainer.checkpoint.lineage import document_position
from finetune_trainer.checkpoint.manifest import Evaluation, Kind
from finetune_trainer.checkpoint.snapshot import Snapshot, read_document, read_tensors
from finetune_trainer.checkpoint.store import Committer
from finetune_trainer.errors import TrainerError
from finetune_trainer.run_folder import RunFolder
from tests.unit.checkpoint.runs import STAGE, Dead, FaultyLayer, KilledLayer, LyingLayer, PowerCutLayer, begin, run_in, snapshot, store_of

Work = Callable[[Committer], None]


def first_save(store: Committer) -> None:
    store.commit(STAGE, 10, snapshot(10))
    store.wait()


def later_save(store: Committer) -> None:
    store.commit(STAGE, 20, snapshot(20))
    store.wait()


def save_around_evaluation(store: Committer) -> None:
    store.commit(STAGE, 20, snapshot(20), evaluation=Evaluation.PENDING)
    store.commit_evaluated(STAGE, 20, Snapshot({}, {"progress": {"extra": {"best": 0.5}}}))
    store.wait()


def hand_over(store: Committer) -> None:
    store.commit_handover(STAGE, 10, snapshot(11))


SCENARIOS: dict[str, tuple[bool, Work]] = {
    "the first save of a run": (False, first_save),
    "a save that deletes the one before": (True, later_save),
    "a save with its evaluation after it": (True, save_around_evaluation),
    "a hand-over": (True, hand_over),
}


def dies_at(folder: Path, layer: FaultyLayer, *, before: bool, work: Work, asynchronous: bool) -> bool:
    """Run a scenario in a process that dies by its layer. Returns whether it died."""
    run = run_in(folder)
    if before:
        store_of(begin(run), keep=1).commit(STAGE, 10, snapshot(10))
    epoch = begin(run)
    store = store_of(
        Epoch(**{**vars(epoch), "files": layer, "journal": type(epoch.journal)(run.journal, layer)}), keep=1, asynchronous=asynchronous
    )
    try:
        work(store)
    except Dead:
        return True
    finally:
        if asynchronous:
            store.close()
    return False


@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "asynchronous"])
@pytest.mark.parametrize("layer", [KilledLayer, PowerCutLayer], ids=["killed", "power cut"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_death_between_any_two_operations_leaves_the_newest_committed_state(
    memory_folder: Path, scenario: str, layer: type[FaultyLayer], asynchronous: bool
) -> None:
    before, work = SCENARIOS[scenario]
    at = 0
    while True:
        folder = memory_folder / str(at)
        died = dies_at(folder, layer(at), before=before, work=work, asynchronous=asynchronous)
        where = f"death before operation {at}"
        after = begin(run_in(folder), FileLayer())
        assert after.rejected == [], where
        committed = [event for event in after.journal.read() if event["event"] in (Event.COMMIT, Event.HAND_OVER)]
        if after.start is None:
            assert not before and not committed, where
        else:
            assert after.start.position >= max(
                [(0, False, 10, True)] * before + [document_position(event) for event in committed], default=(0, False, 0, False)
            ), where
            expected = 11 if after.start.kind is Kind.HANDOVER else after.start.step
            for name, tensors in snapshot(expected).tensors.items():
                loaded = read_tensors(after.start.path, name)
                assert loaded.keys() == tensors.keys() and all(torch.equal(loaded[key], tensors[key]) for key in tensors), where
            if after.start.evaluation is Evaluation.DONE:
                assert read_document(after.start.path, "progress") == {"extra": {"best": 0.5}}, where
        shutil.rmtree(folder)
        if not died:
            break
        at += 1
    assert at > 30, "the layer saw hardly any operations: the store does not go through it"


def test_a_layer_that_forgets_fsync_is_found_out(memory_folder: Path) -> None:
    """The negative control of the power cuts: without fsyncs they do damage that the next start sees."""

    class Forgetful(PowerCutLayer):
        def done(self, operation: str, path: Path, new: bool) -> None:
            if operation != "fsync":
                super().done(operation, path, new)

    damaged = 0
    for at in range(200):
        folder = memory_folder / str(at)
        if not dies_at(folder, Forgetful(at), before=True, work=later_save, asynchronous=False):
            break
        damaged += bool(begin_or_none(folder))
    assert damaged > 0


def begin_or_none(folder: Path) -> bool:
    """Whether a start finds something damaged."""
    try:
        return bool(begin(run_in(folder)).rejected)
    except TrainerError:
        return True


def test_what_a_death_left_behind_is_cleared_by_the_next_epoch(memory_folder: Path) -> None:
    layer = KilledLayer(12)
    assert dies_at(memory_folder, layer, before=True, work=later_save, asynchronous=False)
    left = list((memory_folder / "run").rglob(".writing-*"))
    assert left
    store_of(begin(run_in(memory_folder)), keep=1).commit(STAGE, 20, snapshot(20))
    assert not [path for path in (memory_folder / "run").rglob(".*") if path.is_dir()]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "asynchronous"])
def test_what_reads_back_differently_is_never_committed(memory_folder: Path, asynchronous: bool) -> None:
    at = lies = 0
    while True:
        folder = memory_folder / str(at)
        run = run_in(folder)
        store_of(begin(run), keep=1).commit(STAGE, 10, snapshot(10))
        layer = LyingLayer(at)
        epoch = begin(run)
        store = store_of(Epoch(**{**vars(epoch), "files": layer}), keep=1, asynchronous=asynchronous)
        try:
            later_save(store)
        except TrainerError as error:
            assert error.reason is Reason.STORAGE_UNWRITABLE and "what was written reads back differently" in str(error)
            lies += 1
            assert at_step(run) == 10
        else:
            assert at_step(run) == 20
        shutil.rmtree(folder)
        if layer.writes <= at:
            break
        at += 1
    assert lies == len(dict(snapshot(20).files())) + 1


def at_step(run: RunFolder) -> int:
    """The step that the next start would go on from, with nothing rejected."""
    start = begin(run)
    assert start.start is not None and start.rejected == []
    return start.start.step
