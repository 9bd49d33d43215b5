"""What stands where a store would, where nothing of a training is kept: a range test, a measurement."""

from __future__ import annotations

from finetune_trainer.checkpoint.lineage import CheckpointRef
from finetune_trainer.checkpoint.manifest import Evaluation
from finetune_trainer.checkpoint.snapshot import Snapshot


class Nowhere:
    """A store that keeps nothing."""

    def commit(self, stage: str, step: int, snapshot: Snapshot, *, evaluation: Evaluation = Evaluation.NONE) -> None:
        """Nothing is kept."""

    def commit_evaluated(self, stage: str, step: int, snapshot: Snapshot) -> None:
        """Nothing is kept."""

    def commit_handover(self, stage: str, step: int, snapshot: Snapshot) -> CheckpointRef:
        raise NotImplementedError("nothing is handed over where nothing is kept")

    def protect(self, stage: str, step: int | None) -> None:
        """Nothing is kept."""

    def find(self, stage: str, step: int) -> CheckpointRef:
        raise NotImplementedError("there are no checkpoints where nothing is kept")

    def settle(self) -> None:
        """Nothing was read, so nothing is waited for."""

    def wait(self) -> CheckpointRef | None:
        return None

    def close(self) -> None:
        """Nothing is open."""
