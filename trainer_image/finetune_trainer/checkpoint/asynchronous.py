"""Saves beside the training: another thread copies the tensors, and writes the copy.

Weights and moments change in the optimizer's update alone, so the copy has the next step's forward and backward pass to be made in, and
only `settle`, just before that update, waits for it (the snapshot of CheckFreq, Mohan et al., FAST 2021). It goes into buffers that are
kept, since fresh memory costs more than the copying. There is one set of them, so a save waits for the one before (back-pressure). What
is written is written by the plain store's own commit: what is on disk at any instant, and in which order it came there, is the same as
for a plain save.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from finetune_trainer.checkpoint.lineage import CheckpointRef
from finetune_trainer.checkpoint.manifest import Evaluation
from finetune_trainer.checkpoint.snapshot import Snapshot
from finetune_trainer.checkpoint.store import CheckpointStore
from finetune_trainer.watchdog import SAVER


class AsynchronousStore:
    """A `Committer` over a plain store. `commit` returns at once; an error of its copy or its write is raised by the next call but `settle`."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=SAVER)
        self._running: Future[None] | None = None
        self._copied = threading.Event()
        self._copied.set()
        self._buffers: dict[tuple[str, str], torch.Tensor] = {}

    def commit(self, stage: str, step: int, snapshot: Snapshot, *, evaluation: Evaluation = Evaluation.NONE) -> None:
        self._start(snapshot, lambda copy: self._store.commit(stage, step, copy, evaluation=evaluation))

    def commit_evaluated(self, stage: str, step: int, snapshot: Snapshot) -> None:
        self._start(snapshot, lambda copy: self._store.commit_evaluated(stage, step, copy))

    def commit_handover(self, stage: str, step: int, snapshot: Snapshot) -> CheckpointRef:
        self.wait()
        return self._store.commit_handover(stage, step, snapshot)

    def protect(self, stage: str, step: int | None) -> None:
        self._store.protect(stage, step)

    def find(self, stage: str, step: int) -> CheckpointRef:
        self.wait()
        return self._store.find(stage, step)

    def settle(self) -> None:
        self._copied.wait()

    def wait(self) -> CheckpointRef | None:
        running, self._running = self._running, None
        if running:
            running.result()
        return self._store.wait()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._worker.shutdown()
            self._buffers.clear()

    def _start(self, snapshot: Snapshot, write: Callable[[Snapshot], None]) -> None:
        self.wait()
        self._copied.clear()

        def work() -> None:
            try:
                copy = self._copy(snapshot)
            finally:  # whoever waits to change the tensors must not wait for ever for a copy that failed
                self._copied.set()
            write(copy)

        self._running = self._worker.submit(work)

    def _copy(self, snapshot: Snapshot) -> Snapshot:
        """Tensors that nothing else holds. Documents were made for this snapshot, so they are no one else's already."""
        copies: dict[str, Mapping[str, torch.Tensor]] = {}
        for file, tensors in snapshot.tensors.items():
            copies[file] = {name: self._buffer(file, name, tensor) for name, tensor in tensors.items()}
        documents: dict[str, Any] = dict(snapshot.documents)
        return Snapshot(copies, documents)

    def _buffer(self, file: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
        known = self._buffers.get((file, name))
        if known is None or known.shape != tensor.shape or known.dtype != tensor.dtype:
            known = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=tensor.is_cuda)
            self._buffers[file, name] = known
        return known.copy_(tensor.detach())
