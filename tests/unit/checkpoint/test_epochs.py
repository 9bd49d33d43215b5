"""Fencing: every start writes in its own epoch, readers follow the lineage, and what a zombie commits is never read."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune_api.constants import Reason
from finetune_trainer.checkpoint import lineage
from finetune_trainer.checkpoint.asynchronous import AsynchronousStore
from finetune_trainer.checkpoint.epochs import CURVE, SAMPLES, Epoch
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.journal import Event, Journal
from finetune_trainer.checkpoint.manifest import Evaluation, Kind
from finetune_trainer.checkpoint.snapshot import Snapshot, read_document
from finetune_trainer.checkpoint.steplog import StepLog, last_step, lines
from finetune_trainer.checkpoint.store import CheckpointStore, Committer
from finetune_trainer.errors import TrainerError
from tests.unit.checkpoint.runs import STAGE, begin, run_in, snapshot, store_of


def steps_on_disk(folder: Path) -> dict[str, list[str]]:
    """Stage → names of what is committed, over all epochs."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("run/epochs/*/stages/*/*")):
        if path.is_dir():
            found.setdefault(path.parent.name, []).append(f"{path.parents[2].name}/{path.name}")
    return found


def test_each_start_gets_an_epoch_and_goes_on_from_the_newest_commit(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    first = begin(run)
    assert (first.number, first.start, first.resumed_from_step, first.start_count) == (1, None, None, 1)
    store_of(first).commit(STAGE, 10, snapshot(10))
    second = begin(run)
    assert second.number == 2 and second.start is not None and second.start.epoch == 1
    assert (second.resumed_from_step, second.start_count) == (10, 2)
    third = begin(run)  # the second committed nothing
    assert third.number == 3 and third.start is not None and (third.start.epoch, third.start.step) == (1, 10)


def test_what_a_zombie_commits_is_not_read(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    zombie = store_of(begin(run))
    zombie.commit(STAGE, 10, snapshot(10))
    replacement = store_of(begin(run))
    zombie.commit(STAGE, 20, snapshot(20))
    zombie.commit(STAGE, 30, snapshot(30))
    replacement.commit(STAGE, 15, snapshot(15))
    after = begin(run)
    assert after.start is not None and (after.start.epoch, after.start.step) == (2, 15)


def test_a_zombie_s_commits_before_the_replacement_s_first_do_not_count_either(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    zombie = store_of(begin(run))
    zombie.commit(STAGE, 10, snapshot(10))
    begin(run)
    zombie.commit(STAGE, 20, snapshot(20))
    after = begin(run)
    assert after.start is not None and after.start.step == 10


def test_a_zombie_deletes_nothing_of_its_replacement(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    zombie = store_of(begin(run), keep=1)
    zombie.commit(STAGE, 10, snapshot(10))
    replacement = store_of(begin(run), keep=1)
    replacement.commit(STAGE, 20, snapshot(20))
    for step in (30, 40, 50):
        zombie.commit(STAGE, step, snapshot(step))
    after = begin(run)
    assert after.start is not None and (after.start.epoch, after.start.step) == (2, 20)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "asynchronous"])
def test_a_zombie_that_sees_its_replacement_writes_and_deletes_nothing_more(memory_folder: Path, asynchronous: bool) -> None:
    run = run_in(memory_folder)
    epoch = begin(run)
    plain = CheckpointStore(epoch, keep=1, fence=epoch.refuse_if_superseded)
    zombie: Committer = AsynchronousStore(plain) if asynchronous else plain
    zombie.commit(STAGE, 10, snapshot(10))
    zombie.wait()
    epoch.refuse_if_superseded()
    begin(run)
    with pytest.raises(TrainerError, match="start 2 of this run has taken over from start 1") as caught:
        zombie.commit(STAGE, 20, snapshot(20))
        zombie.wait()
    assert caught.value.reason is Reason.RUN_FOLDER_BUSY
    assert [path.name for path in epoch.stage_folder(STAGE).iterdir()] == ["checkpoint-00000010"]
    after = begin(run)
    assert after.start is not None and (after.start.epoch, after.start.step) == (1, 10)


def test_an_epoch_whose_process_died_before_its_record_is_passed_over(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    store_of(begin(run)).commit(STAGE, 10, snapshot(10))
    (run.epochs / "0002").mkdir()
    after = begin(run)
    assert after.number == 3 and after.start is not None and after.start.step == 10


@pytest.mark.parametrize("race", range(20))
def test_of_starts_at_once_each_has_an_epoch_of_its_own(memory_folder: Path, race: int) -> None:
    run = run_in(memory_folder)
    store_of(begin(run)).commit(STAGE, 10, snapshot(10))
    with ThreadPoolExecutor(4) as pool:
        epochs = list(pool.map(lambda _: begin(run), range(4)))
    assert sorted(epoch.number for epoch in epochs) == [2, 3, 4, 5]
    newest = max(epochs, key=lambda epoch: epoch.number)
    for epoch in sorted(epochs, key=lambda epoch: epoch.number, reverse=True):
        store_of(epoch).commit(STAGE, 100 + epoch.number, snapshot(epoch.number))
    after = begin(run)
    assert after.start is not None and after.start.epoch == newest.number


def test_a_damaged_newest_is_recomputed_in_the_new_epoch_and_never_comes_back(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run))
    store.commit(STAGE, 10, snapshot(10))
    store.commit(STAGE, 20, snapshot(20))
    (store.find(STAGE, 20).path / "rng.json").write_text("[]")
    second = begin(run)
    assert second.resumed_from_step == 10 and len(second.rejected) == 1
    third = begin(run)
    assert third.resumed_from_step == 10 and third.rejected == [], "the damaged one is off the line of descent"
    store_of(third).commit(STAGE, 20, snapshot(20))
    assert steps_on_disk(memory_folder) == {STAGE: ["0001/checkpoint-00000010", "0003/checkpoint-00000020"]}


Act = Callable[[Epoch], None]


def saves(*steps: int, keep: int, best: int | None = None) -> Act:
    def act(epoch: Epoch) -> None:
        store = store_of(epoch, keep=keep)
        store.protect(STAGE, best)
        for step in steps:
            store.commit(STAGE, step, snapshot(step))

    return act


RETENTION: dict[str, tuple[list[Act], list[str]]] = {
    "one is kept": ([saves(10, 20, 30, keep=1)], ["0001/checkpoint-00000030"]),
    "two are kept": ([saves(10, 20, 30, keep=2)], ["0001/checkpoint-00000020", "0001/checkpoint-00000030"]),
    "the best stays": ([saves(10, 20, 30, keep=1, best=10)], ["0001/checkpoint-00000010", "0001/checkpoint-00000030"]),
    "an ancestor's go once the own one is there": (
        [saves(10, 20, keep=2), saves(30, keep=2)],
        ["0001/checkpoint-00000020", "0002/checkpoint-00000030"],
    ),
    "a start alone deletes nothing": (
        [saves(10, 20, keep=2), lambda epoch: None],
        ["0001/checkpoint-00000010", "0001/checkpoint-00000020"],
    ),
    "an ancestor's best stays": (
        [saves(10, 20, keep=1, best=10), saves(30, 40, keep=1, best=10)],
        ["0001/checkpoint-00000010", "0002/checkpoint-00000040"],
    ),
}


@pytest.mark.parametrize("case", RETENTION)
def test_retention(memory_folder: Path, case: str) -> None:
    acts, left = RETENTION[case]
    for act in acts:
        act(begin(run_in(memory_folder)))
    assert steps_on_disk(memory_folder) == {STAGE: left}


def test_the_older_goes_only_after_the_newer_was_verified(memory_folder: Path) -> None:
    class Order(FileLayer):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            self.seen.append(target.name.split("-0000")[0] + target.name[-2:] if target.name.startswith("checkpoint") else "delete")

    layer = Order()
    epoch = begin(run_in(memory_folder), layer)
    layer.seen.clear()
    saves(10, 20, keep=1)(epoch)
    assert layer.seen == ["checkpoint10", "checkpoint20", "delete"]


def test_when_the_next_stage_has_a_checkpoint_one_of_the_stage_before_is_enough(memory_folder: Path) -> None:
    store = store_of(begin(run_in(memory_folder)), keep=2)
    store.commit(STAGE, 10, snapshot(10))
    store.commit(STAGE, 20, snapshot(20))
    store.commit_handover(STAGE, 20, snapshot(21))
    assert len(steps_on_disk(memory_folder)[STAGE]) == 3
    store.commit("1-task", 5, snapshot(5))
    assert steps_on_disk(memory_folder) == {STAGE: ["0001/checkpoint-00000020", "0001/handover"], "1-task": ["0001/checkpoint-00000005"]}


def test_a_hand_over_is_where_the_next_stage_starts(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run))
    store.commit(STAGE, 20, snapshot(20))
    store.commit_handover(STAGE, 20, snapshot(21))
    second = begin(run)
    assert second.start is not None and second.start.kind is Kind.HANDOVER and second.resumed_from_step is None
    store_of(second).commit("1-task", 5, snapshot(5))
    third = begin(run)
    assert third.start is not None and (third.start.stage, third.start.step) == ("1-task", 5)
    assert third.handovers[STAGE].epoch == 1


def test_an_evaluation_is_committed_beside_what_it_measured(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run))
    store.commit(STAGE, 20, snapshot(20), evaluation=Evaluation.PENDING)
    pending = begin(run)
    assert pending.start is not None and pending.start.evaluation is Evaluation.PENDING
    # The process that goes on evaluates first, and links what the one before it wrote.
    store = store_of(pending)
    store.commit_evaluated(STAGE, 20, Snapshot({}, {"progress": {"extra": {"best": 0.5}}}))
    after = begin(run)
    assert after.start is not None and (after.start.epoch, after.start.evaluation) == (2, Evaluation.DONE)
    assert read_document(after.start.path, "progress") == {"extra": {"best": 0.5}}
    assert read_document(after.start.path, "trainer_state") == {"global_step": 20}
    assert steps_on_disk(memory_folder) == {STAGE: ["0002/checkpoint-00000020"]}


def test_without_hard_links_the_files_are_copied(memory_folder: Path) -> None:
    class NoLinks(FileLayer):
        @staticmethod
        def make_link(source: Path, target: Path) -> None:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    run = run_in(memory_folder)
    store = store_of(begin(run, NoLinks()))
    store.commit(STAGE, 20, snapshot(20), evaluation=Evaluation.PENDING)
    store.commit_evaluated(STAGE, 20, Snapshot({}, {"progress": {}}))
    after = begin(run)
    assert after.start is not None and after.start.evaluation is Evaluation.DONE and after.rejected == []


def test_logs_are_carried_over_and_cut_to_the_committed_step(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    epoch = begin(run)
    log = StepLog(epoch.log(STAGE, SAMPLES))
    for step in range(1, 15):
        log.append(step, rows=[step])
        if step == 10:
            store_of(epoch).commit(STAGE, 10, snapshot(10))
    log.close()
    StepLog(epoch.log(STAGE, CURVE)).append(10, loss=1.0)
    with epoch.log(STAGE, SAMPLES).open("ab") as file:
        file.write(b'{"step":15,"ro')  # torn by the death of the process
    second = begin(run)
    assert [step for step, _ in lines(second.log(STAGE, SAMPLES))] == list(range(1, 11))
    assert last_step(second.log(STAGE, CURVE)) == 10
    assert (second.resumed_from_step, second.steps_lost) == (10, 4)


def test_steps_lost_count_from_the_beginning_where_nothing_was_committed(memory_folder: Path) -> None:
    epoch = begin(run_in(memory_folder))
    StepLog(epoch.log(STAGE, SAMPLES)).append(3)
    assert begin(run_in(memory_folder)).steps_lost == 3


def test_the_journal_counts_starts_and_survives_a_torn_line(memory_folder: Path) -> None:
    path = memory_folder / "journal.jsonl"
    journal = Journal(path, FileLayer(), clock=lambda: 12.5)
    journal.append(Event.START, epoch=1, segment=1)
    with path.open("ab") as file:
        file.write(b'{"event": "comm')
    journal.append(Event.START, epoch=2, segment=2)
    journal.append(Event.END, epoch=2, exitCode=0)
    assert [(event["event"], event["epoch"], event["at"]) for event in journal.read()] == [
        ("start", 1, 12.5),
        ("start", 2, 12.5),
        ("end", 2, 12.5),
    ]
    assert (journal.starts(), journal.starts(2), journal.starts(3)) == (2, 1, 0)


def test_a_lost_best_checkpoint_is_named(memory_folder: Path) -> None:
    from finetune_trainer.errors import TrainerError

    store = store_of(begin(run_in(memory_folder)), keep=2)
    store.commit(STAGE, 10, snapshot(10))
    (store.find(STAGE, 10).path / "weights.safetensors").unlink()
    with pytest.raises(TrainerError, match=r"step 10 is needed, but weights\.safetensors can't be read") as caught:
        store.find(STAGE, 10)
    assert caught.value.exit_code == 31
    with pytest.raises(TrainerError, match="step 40 is needed, but it is gone"):
        store.find(STAGE, 40)


def test_stages_are_ordered_by_number_not_by_name(memory_folder: Path) -> None:
    run = run_in(memory_folder)
    store = store_of(begin(run))
    for index in range(11):
        store.commit_handover(f"{index}-s", 1, snapshot(1))
    after = begin(run)
    assert after.start is not None and after.start.stage == "10-s" and len(after.handovers) == 11
    shutil.rmtree(run.epochs / "0001/stages/4-s")
    after = begin(run)
    assert after.start is not None and after.start.stage == "3-s"
    assert lineage.stage_name(3, "s") == "3-s"
