"""An epoch: one start of a trainer, fenced off from every other start by an exclusive mkdir."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetune_api.constants import Reason
from finetune_trainer.checkpoint import lineage
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.journal import Event, Journal
from finetune_trainer.checkpoint.lineage import CheckpointRef, Found, Link, Rejected, stage_index
from finetune_trainer.checkpoint.manifest import Kind
from finetune_trainer.checkpoint.steplog import carry_over, last_step
from finetune_trainer.errors import TrainerError
from finetune_trainer.run_folder import RunFolder

SAMPLES: Final = "samples.jsonl"
CURVE: Final = "curve.jsonl"
LOGS: Final = (SAMPLES, CURVE)


@dataclass(frozen=True)
class Epoch:
    """This process's place in the run folder, and where it starts from."""

    number: int
    path: Path
    start: CheckpointRef | None
    """None: from the beginning. A hand-over: its stage is done, the next one starts. A checkpoint: its stage goes on after that step."""
    handovers: dict[str, CheckpointRef]
    """Verified hand-overs of the stages that are done, by stage (`0-domain`)."""
    rejected: list[Rejected]
    """Newer folders that were damaged, and why; to be said to the user."""
    links: list[Link]
    files: FileLayer
    journal: Journal
    start_count: int
    """How many trainer processes have begun this run, this one included."""
    steps_lost: int = 0
    """Steps that the process before had run and not committed."""

    @property
    def resumed_from_step(self) -> int | None:
        """The step of `start` where a stage goes on in its middle."""
        return self.start.step if self.start and self.start.kind is Kind.CHECKPOINT else None

    def stage_folder(self, stage: str) -> Path:
        """Where this epoch keeps what belongs to a stage (`0-domain`): checkpoints, hand-over, logs."""
        return self.path / lineage.STAGES / stage

    def log(self, stage: str, name: str) -> Path:
        """The path of a stage's log (`SAMPLES`, `CURVE`)."""
        return self.stage_folder(stage) / name

    def refuse_if_superseded(self) -> None:
        """Raise TrainerError(RunFolderBusy) where a later start has begun: nobody reads what this one would write, and what it would
        delete may be what the later one started from."""
        newest = max(lineage.epoch_numbers(self.path.parent), default=self.number)
        if newest > self.number:
            raise TrainerError(
                Reason.RUN_FOLDER_BUSY, f"start {newest} of this run has taken over from start {self.number}", where=str(self.path.parent)
            )

    def record(self, event: Event, **fields: Any) -> None:
        """Write an event of this epoch into the journal."""
        self.journal.append(event, **{"epoch": self.number, **fields})


def open_epoch(run: RunFolder, *, segment: int, files: FileLayer | None = None, clock: Callable[[], float] = time.time) -> Epoch:
    """Find the newest valid checkpoint, and begin a new epoch from there.

    Call it with the run folder's lock held. Raises TrainerError(CheckpointInvalid) where a checkpoint was committed and none is whole.
    """
    files = files or FileLayer()
    journal = Journal(run.journal, files, clock)
    files.make_parents(run.epochs)
    parent = lineage.head(run.epochs)
    ancestors = lineage.chain(run.epochs, parent)
    found = lineage.newest_valid(ancestors)
    if found.newest is None and _promised(ancestors, journal):
        raise TrainerError(Reason.CHECKPOINT_INVALID, _nothing_left(found), where=str(run.epochs))
    lost = _steps_lost(ancestors, found.newest)

    number = _make_exclusive(run.epochs, files)
    folder = lineage.epoch_folder(run.epochs, number)
    lineage.write_lineage(folder, parent=parent, start=found.newest, files=files)
    if found.newest:
        _carry_logs(lineage.epoch_folder(run.epochs, found.newest.epoch), folder, found.newest, files)
    epoch = Epoch(
        number=number,
        path=folder,
        start=found.newest,
        handovers=found.handovers,
        rejected=found.rejected,
        links=lineage.chain(run.epochs, number),
        files=files,
        journal=journal,
        start_count=journal.starts() + 1,
        steps_lost=lost,
    )
    epoch.record(
        Event.START,
        segment=segment,
        start=found.newest.document() if found.newest else None,
        resumedFromStep=epoch.resumed_from_step,
        stepsLost=lost,
        rejected=[str(entry) for entry in found.rejected],
    )
    return epoch


def _make_exclusive(epochs: Path, files: FileLayer) -> int:
    """Take the next free number; whoever loses the race takes the one after."""
    number = max(lineage.epoch_numbers(epochs), default=0)
    while True:
        number += 1
        try:
            files.make_folder(lineage.epoch_folder(epochs, number))
        except FileExistsError:
            continue
        files.sync_folder(epochs)
        return number


def _promised(links: Sequence[Link], journal: Journal) -> bool:
    """Whether this line of descent ever had a checkpoint: by the journal, by what it started from, or by what lies there."""
    epochs = {link.epoch for link in links}
    committed = any(event["event"] in (Event.COMMIT, Event.HAND_OVER) and event.get("epoch") in epochs for event in journal.read())
    return committed or any(link.limit is not None for link in links) or bool(lineage.candidates(links))


def _nothing_left(found: Found) -> str:
    listed = "".join(f"\n  {entry}" for entry in found.rejected)
    return f"every checkpoint that was saved here is damaged:{listed}" if listed else "every checkpoint that was saved here is gone"


def _steps_lost(links: Sequence[Link], start: CheckpointRef | None) -> int:
    """Steps in the newest epoch's sample logs that lie after `start`."""
    if not links:
        return 0
    stages = links[0].folder / lineage.STAGES
    lost = 0
    for stage in stages.iterdir() if stages.is_dir() else []:
        reached = last_step(stage / SAMPLES)
        if start is None or stage_index(stage.name) > stage_index(start.stage):
            lost += reached
        elif stage.name == start.stage:
            lost += max(0, reached - start.step)
    return lost


def _carry_logs(source: Path, target: Path, start: CheckpointRef, files: FileLayer) -> None:
    """Copy the logs of what is done; the epoch that wrote `start` has all of them."""
    for stage in sorted((source / lineage.STAGES).iterdir()):
        if stage_index(stage.name) > stage_index(start.stage):
            continue
        for name in LOGS:
            if (stage / name).exists():
                whole = stage.name != start.stage
                step = 2**62 if whole else start.step
                carry_over(stage / name, target / lineage.STAGES / stage.name / name, step=step, files=files)
