"""The store: commits a snapshot so that it is there whole or not at all, and deletes older ones only after that.

A commit is: temporary folder, every file written and fsynced, the manifest last, all of it read back and compared, the folder's own
fsync, the rename, the parent's fsync, a line in the journal. A process that dies between any two of these leaves what was there before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from finetune_api.constants import Reason
from finetune_api.wire import Activity
from finetune_trainer.checkpoint import lineage
from finetune_trainer.checkpoint.epochs import Epoch
from finetune_trainer.checkpoint.files import FileRecord
from finetune_trainer.checkpoint.journal import Event
from finetune_trainer.checkpoint.lineage import Candidate, CheckpointRef, folder_name, stage_index
from finetune_trainer.checkpoint.manifest import MANIFEST, Damaged, Evaluation, Kind, Manifest, verify
from finetune_trainer.checkpoint.snapshot import Snapshot
from finetune_trainer.errors import TrainerError
from finetune_trainer.progress import NullReporter, Reporter


class Committer(Protocol):
    """What training saves to. Both stores are one: the plain one writes at once, the asynchronous one beside the training."""

    def commit(self, stage: str, step: int, snapshot: Snapshot, *, evaluation: Evaluation = Evaluation.NONE) -> None:
        """Save a step; its tensors may change after `settle`. The asynchronous store returns at once; errors of the write before are raised here."""
        ...

    def commit_evaluated(self, stage: str, step: int, snapshot: Snapshot) -> None:
        """Replace a step's pending checkpoint by one with its evaluation: `snapshot` has the files that changed, the others are linked."""
        ...

    def commit_handover(self, stage: str, step: int, snapshot: Snapshot) -> CheckpointRef:
        """Save what the next stage starts from; always done when it returns."""
        ...

    def protect(self, stage: str, step: int | None) -> None:
        """Keep this step of the stage whatever comes after: the best one so far. None: no step."""
        ...

    def find(self, stage: str, step: int) -> CheckpointRef:
        """A committed step, verified. Raises TrainerError(CheckpointInvalid)."""
        ...

    def settle(self) -> None:
        """Return once nothing reads the last snapshot's tensors any more: call it before they change."""
        ...

    def wait(self) -> CheckpointRef | None:
        """Wait until everything is written, and return the last commit of this process. Raises what a write raised."""
        ...

    def close(self) -> None:
        """`wait`, and end."""
        ...


class CheckpointStore:
    """Writes into one epoch, and deletes there and in its ancestors. Not for two threads at once."""

    def __init__(self, epoch: Epoch, *, keep: int, reporter: Reporter | None = None, fence: Callable[[], None] = lambda: None) -> None:
        """`fence` raises where another process has taken over; asked before anything is written or deleted."""
        self.keep = keep
        self._fence = fence
        self.epoch = epoch
        self._files = epoch.files
        self._reporter = reporter or NullReporter()
        self._protected: dict[str, int | None] = {}
        self._last: CheckpointRef | None = None

    def commit(self, stage: str, step: int, snapshot: Snapshot, *, evaluation: Evaluation = Evaluation.NONE) -> None:
        self._commit(Manifest(Kind.CHECKPOINT, stage, step, evaluation), snapshot)
        self._prune(stage)

    def commit_evaluated(self, stage: str, step: int, snapshot: Snapshot) -> None:
        pending = self.epoch_path(stage, step, Evaluation.PENDING)
        if not pending.exists():
            pending = self._inherited(stage, step)
        self._commit(Manifest(Kind.CHECKPOINT, stage, step, Evaluation.DONE), snapshot, linked=pending)
        self._prune(stage)

    def commit_handover(self, stage: str, step: int, snapshot: Snapshot) -> CheckpointRef:
        return self._commit(Manifest(Kind.HANDOVER, stage, step), snapshot)

    def protect(self, stage: str, step: int | None) -> None:
        self._protected[stage] = step

    def find(self, stage: str, step: int) -> CheckpointRef:
        rejected = []
        for candidate in lineage.candidates(self.epoch.links):
            if candidate.kind is Kind.CHECKPOINT and (candidate.stage, candidate.step) == (stage, step):
                try:
                    return lineage.verify_candidate(candidate)
                except Damaged as error:
                    rejected.append(str(error))
        raise TrainerError(
            Reason.CHECKPOINT_INVALID,
            f"the checkpoint of step {step} is needed, but {'; '.join(rejected) or 'it is gone'}",
            where=str(self.epoch.stage_folder(stage)),
            stage=stage,
            step=step,
        )

    def settle(self) -> None:
        pass

    def wait(self) -> CheckpointRef | None:
        return self._last

    def close(self) -> None:
        pass

    def epoch_path(self, stage: str, step: int, evaluation: Evaluation) -> Path:
        """Where this epoch has a step, or would have it."""
        return self.epoch.stage_folder(stage) / folder_name(Kind.CHECKPOINT, step, evaluation)

    def _inherited(self, stage: str, step: int) -> Path:
        """The pending checkpoint that this epoch started from."""
        start = self.epoch.start
        if start is None or (start.kind, start.stage, start.step) != (Kind.CHECKPOINT, stage, step):
            raise TrainerError(Reason.INTERNAL_ERROR, f"step {step} was evaluated before it was committed", stage=stage, step=step)
        return start.path

    def _commit(self, manifest: Manifest, snapshot: Snapshot, *, linked: Path | None = None) -> CheckpointRef:
        stage_folder = self.epoch.stage_folder(manifest.stage)
        target = stage_folder / folder_name(manifest.kind, manifest.step, manifest.evaluation)
        if target.exists():
            return self._done(CheckpointRef.of(target, self.epoch.number, _read_back(target)))
        self._fence()
        self._reporter.report(Activity.SAVE, stage=manifest.stage.partition("-")[2], done=manifest.step, unit="steps")
        temporary = target.with_name(f".writing-{target.name}")
        self._files.make_parents(stage_folder)
        self._files.remove_tree(temporary)
        try:
            written = self._write(temporary, manifest, snapshot, linked)
        except TrainerError:
            # Nothing refers to it, and on a full disk it is in the way of the next attempt.
            self._files.remove_tree(temporary)
            raise
        self._files.rename(temporary, target)
        self._files.sync_folder(stage_folder)
        ref = CheckpointRef.of(target, self.epoch.number, written)
        self.epoch.record(Event.HAND_OVER if ref.kind is Kind.HANDOVER else Event.COMMIT, **ref.document())
        return self._done(ref)

    def _write(self, folder: Path, manifest: Manifest, snapshot: Snapshot, linked: Path | None) -> Manifest:
        self._files.make_folder(folder)
        records: dict[str, FileRecord] = {}
        for name, chunks in snapshot.files():
            records[name] = self._files.write_file(folder / name, chunks)
        trusted: list[str] = []
        if linked:
            # These were verified when they were committed, or when this process started from them.
            for name, known in _read_back(linked, trusted=frozenset(entry.name for entry in linked.iterdir())).files.items():
                if name not in records:
                    self._files.link(linked / name, folder / name)
                    records[name] = known
                    trusted.append(name)
        complete = Manifest(manifest.kind, manifest.stage, manifest.step, manifest.evaluation, records)
        self._files.write_file(folder / MANIFEST, [complete.render()])
        _read_back(folder, trusted=frozenset(trusted))
        self._files.sync_folder(folder)
        return complete

    def _done(self, ref: CheckpointRef) -> CheckpointRef:
        self._last = ref
        self._reporter.report(
            Activity.SAVE,
            stage=ref.stage.partition("-")[2],
            done=ref.step,
            total=ref.step,
            unit="steps",
            message=f"{ref} is saved and verified",
        )
        return ref

    def _prune(self, stage: str) -> None:
        """Delete what is no longer needed. Called only after a newer checkpoint was verified."""
        self._fence()
        for path in [*self._superfluous(stage), *lineage.dead(self.epoch.links)]:
            self._files.remove_tree(path)

    def _superfluous(self, stage: str) -> list[Path]:
        checkpoints = [entry for entry in lineage.candidates(self.epoch.links) if entry.kind is Kind.CHECKPOINT]
        stages = {entry.stage for entry in checkpoints if stage_index(entry.stage) <= stage_index(stage)}
        doomed: list[Path] = []
        for name in stages:
            entries = [entry for entry in checkpoints if entry.stage == name]
            # Of a stage that is done one is enough: should its hand-over be damaged, it is made again from there.
            keep = self.keep if name == stage else 1
            doomed += _superfluous(entries, keep, self._protected.get(name) if name == stage else None)
        return doomed


def _superfluous(entries: list[Candidate], keep: int, best: int | None) -> list[Path]:
    """Of one stage's checkpoints (newest first): all but the newest `keep` steps and the best; of a kept step the one with its evaluation."""
    steps = list(dict.fromkeys(entry.step for entry in entries))
    kept = {*steps[:keep], best}
    evaluated = {entry.step for entry in entries if entry.evaluation is not Evaluation.PENDING}
    return [
        entry.path for entry in entries if entry.step not in kept or (entry.evaluation is Evaluation.PENDING and entry.step in evaluated)
    ]


def _read_back(folder: Path, *, trusted: frozenset[str] = frozenset()) -> Manifest:
    """What was written, read again. Raises TrainerError(StorageUnwritable)."""
    try:
        return verify(folder, trusted=trusted)
    except Damaged as error:
        raise TrainerError(Reason.STORAGE_UNWRITABLE, f"what was written reads back differently: {error}", where=str(folder)) from error
