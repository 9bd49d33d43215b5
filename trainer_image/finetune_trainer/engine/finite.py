"""A number that is none ends the stage before it is used: by default Trainer logs `loss: 0.0` after a NaN, and goes on with NaN weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import TrainingArguments

from finetune_api.constants import Reason
from finetune_trainer.errors import TrainerError

MAX_OVERFLOWS = 32
"""Steps in a row whose scaled fp16 gradients overflow: the scale starts at 2^16 and halves each time, so by then it was tried at 2^-16."""
SHOWN_ROWS = 16


def check_losses(losses: Sequence[float], gradient_norm: float, *, scaled: bool, step: int, ids: Sequence[Sequence[str]]) -> None:
    """Before the optimizer's step. `scaled`: fp16, where a gradient that overflows is skipped by the scaler and is no divergence."""
    for loss, rows in zip(losses, ids, strict=True):
        if not math.isfinite(loss):
            raise _diverged(f"the loss is {loss}", step, rows)
    if not math.isfinite(gradient_norm) and not scaled:
        raise _diverged(f"the gradient's norm is {gradient_norm}", step, [row for rows in ids for row in rows])


def check_scale(overflows: int, *, step: int, ids: Sequence[Sequence[str]]) -> None:
    """fp16: gradients that overflow at every scale are a divergence."""
    if overflows >= MAX_OVERFLOWS:
        raise _diverged(f"the fp16 gradients overflowed in {overflows} steps in a row", step, [row for rows in ids for row in rows])


def _diverged(what: str, step: int, rows: Sequence[str]) -> TrainerError:
    shown = ", ".join(rows[:SHOWN_ROWS]) + (f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else "")
    where = f"; rows of the batch: {shown}" if rows else ""
    return TrainerError(Reason.LOSS_DIVERGED, f"at step {step} {what}{where}", step=step)


@contextmanager
def out_of_memory(step: int, arguments: TrainingArguments) -> Iterator[None]:
    """Turn the many ways in which torch says that memory is out into the one reason."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise TrainerError(
            Reason.OUT_OF_MEMORY,
            f"memory ran out at step {step}, with {arguments.per_device_train_batch_size} rows a batch: {str(error).splitlines()[0]}",
            step=step,
        ) from error
