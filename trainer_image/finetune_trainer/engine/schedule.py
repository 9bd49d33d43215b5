"""How long a stage trains and warms up, in optimizer steps. Pure; imports no torch, since the report asks too."""

from __future__ import annotations

import math

from finetune_api.v1alpha1.training import Training


def warmup_steps(training: Training, total_steps: int) -> int:
    """Optimizer steps of warm-up; a share is rounded up, as transformers does."""
    if training.warmup_steps is not None:
        return training.warmup_steps
    return -int(-(training.warmup_ratio or 0.0) * total_steps // 1)


def total_steps(*, epochs: float | None, max_steps: int | None, steps_per_epoch: int) -> int:
    """Optimizer steps of the stage: max_steps, or those of so many epochs (rounded up)."""
    return max_steps if max_steps is not None else math.ceil((epochs or 1.0) * steps_per_epoch)
