"""How long a save holds training up, asynchronous against synchronous: `python -m tests.bench.saves [--repeats N]`.

The snapshot has the shapes of SmolLM2-135M trained in full with AdamW: weights and two moments, 1.6 GB. Both stores take turns on one
folder. After a save comes a second of forward and backward passes, then the update, which has to wait until the tensors are copied (a step
of that model takes several seconds here); then a pause as long as a synchronous save, so that no save waits for the one before. What blocks
is the save's call and the wait before the update. The first save of the asynchronous store also makes its buffers, and is shown apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from finetune_trainer.checkpoint.asynchronous import AsynchronousStore
from finetune_trainer.checkpoint.epochs import open_epoch
from finetune_trainer.checkpoint.snapshot import Snapshot
from finetune_trainer.checkpoint.store import CheckpointStore, Committer
from finetune_trainer.run_folder import RunFolder

LIMIT = 0.10
PARAMETERS = 134_515_008
TENSORS = 272


def snapshot(parameters: int) -> Snapshot:
    """Weights and AdamW's moments, in as many tensors as the model has."""
    rows = parameters // TENSORS

    def tensors() -> dict[str, torch.Tensor]:
        return {f"tensor-{index:03}": torch.rand(rows) for index in range(TENSORS)}

    return Snapshot({"weights": tensors(), "exp_avg": tensors(), "exp_avg_sq": tensors()}, {"progress": {"step": 0}})


def blocked(store: Committer, step: int, taken: Snapshot) -> float:
    """Seconds for which one commit holds the training up."""
    start = time.perf_counter()
    store.commit("0-domain", step, taken)
    called = time.perf_counter()
    passes()
    passed = time.perf_counter()
    store.settle()
    return called - start + time.perf_counter() - passed


def passes(seconds: float = 1.0) -> None:
    """Matrix products on all cores: what goes on between a save and the next update."""
    left, right = torch.rand(1024, 1024), torch.rand(1024, 1024)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        left @ right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parameters", type=int, default=PARAMETERS)
    parser.add_argument("--folder", type=Path, help="where to write (default: the temporary folder)")
    options = parser.parse_args()
    taken = snapshot(options.parameters)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        epoch = open_epoch(RunFolder(Path(scratch)), segment=1)
        plain = CheckpointStore(epoch, keep=1)
        beside = AsynchronousStore(CheckpointStore(epoch, keep=1))
        first = blocked(beside, 1, taken)
        beside.wait()
        pairs = []
        for step in range(2, 2 + 2 * options.repeats, 2):
            synchronous = blocked(plain, step, taken)
            asynchronous = blocked(beside, step + 1, taken)
            time.sleep(synchronous)
            beside.wait()
            pairs.append((synchronous, asynchronous))
        beside.close()
    ratios = [asynchronous / synchronous for synchronous, asynchronous in pairs]
    size = 3 * 4 * options.parameters / 1e9
    print(
        f"{size:.1f} GB: synchronous {median(s for s, _ in pairs):.2f} s, asynchronous {median(a for _, a in pairs):.3f} s (first {first:.2f} s)"
    )
    print(f"asynchronous / synchronous {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), at most {LIMIT:.2f}")
    return 0 if median(ratios) <= LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
