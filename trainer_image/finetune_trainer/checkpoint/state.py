"""Everything that decides how a run of transformers' Trainer goes on, as a snapshot, and back again, bit for bit.

Weights and optimizer by the names of the parameters, the schedule, the gradient scaler, every random number generator, and what the loop
and its callbacks remember (`extra`: the position in the data, early stopping, the loss since the last point of the curve). safetensors and
JSON; nothing is pickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from transformers import Trainer

from finetune_api.constants import Reason
from finetune_trainer.checkpoint.optimizer_state import FILE as OPTIMIZER
from finetune_trainer.checkpoint.optimizer_state import capture_optimizer, restore_optimizer
from finetune_trainer.checkpoint.random_state import FILE as RNG
from finetune_trainer.checkpoint.random_state import capture_random, restore_random
from finetune_trainer.checkpoint.snapshot import Snapshot, has, read_document, read_tensors, tensor_bytes
from finetune_trainer.errors import TrainerError

WEIGHTS: Final = "weights"
PROGRESS: Final = "progress"
COURSE: Final = "course"
GUARDS: Final = "guards"
"""What guards keep in tensors, where they do."""


def capture(
    trainer: Trainer,
    *,
    weights: Mapping[str, torch.Tensor],
    course: Mapping[str, torch.Tensor] | None = None,
    guards: Mapping[str, torch.Tensor] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Snapshot:
    """All of it, at a step's end. `weights` are the trained tensors by name (fp32); `course` and `guards` are what the method and the guards
    keep in tensors themselves; `extra` goes into `progress.json` as it is.

    The tensors are the live ones: they may change once the committer has settled.
    Raises TrainerError(LossDiverged) if a weight is not finite: what can't be gone on from is no checkpoint.
    """
    step = trainer.state.global_step
    if broken := not_finite(weights):
        raise TrainerError(
            Reason.LOSS_DIVERGED, f"{len(broken)} of {len(weights)} trained tensors are not finite ({broken[0]}, …)", step=step
        )
    optimizer = capture_optimizer(_plain_optimizer(trainer), parameter_names(trainer.model))
    light = capture_evaluated(trainer, extra=extra)
    own = {part: tensors for part, tensors in ((COURSE, course), (GUARDS, guards)) if tensors}
    return Snapshot({WEIGHTS: weights, **own, **optimizer.tensors, **light.tensors}, {**optimizer.documents, **light.documents})


def capture_evaluated(trainer: Trainer, *, extra: Mapping[str, Any] | None = None) -> Snapshot:
    """What an evaluation changes: what the loop remembers, and the generators. For `commit_evaluated`."""
    random = capture_random()
    progress = {
        "schedule": trainer.lr_scheduler.state_dict(),
        "scaler": scaler.state_dict() if (scaler := _scaler(trainer)) else None,
        "extra": dict(extra or {}),
    }
    return Snapshot(random.tensors, {**random.documents, PROGRESS: progress})


def restore_weights(folder: Path, parameters: Mapping[str, torch.Tensor]) -> None:
    """Copy the trained tensors into the model's own. Raises TrainerError(CheckpointInvalid) where names, types or shapes differ."""
    stored = read_tensors(folder, WEIGHTS)
    if problem := mismatch(stored, parameters):
        raise TrainerError(Reason.CHECKPOINT_INVALID, f"its weights are not those of the model that trains: {problem}", where=str(folder))
    with torch.no_grad():
        for name, tensor in stored.items():
            parameters[name].copy_(tensor)


def read_course(folder: Path) -> Mapping[str, torch.Tensor]:
    """The tensors that the method remembers; most remember none."""
    return read_tensors(folder, COURSE) if has(folder, COURSE) else {}


def restore_optimizer_and_schedule(trainer: Trainer, folder: Path) -> None:
    """Put back the optimizer's state and the learning-rate schedule."""
    restore_optimizer(
        _plain_optimizer(trainer), parameter_names(trainer.model), read_tensors(folder, OPTIMIZER), read_document(folder, OPTIMIZER)
    )
    trainer.lr_scheduler.load_state_dict(read_document(folder, PROGRESS)["schedule"])


def restore_generators(folder: Path) -> None:
    """Put back the random number generators."""
    restore_random(read_tensors(folder, RNG), read_document(folder, RNG))


def restore_scaler(trainer: Trainer, folder: Path) -> None:
    """Put back the scale of fp16 gradients, where there is one."""
    state = read_document(folder, PROGRESS)["scaler"]
    if (scaler := _scaler(trainer)) and state is not None:
        scaler.load_state_dict(state)


def parameter_names(model: torch.nn.Module) -> dict[int, str]:
    """`id(parameter)` → its name in the model."""
    return {id(parameter): name for name, parameter in model.named_parameters()}


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors with a NaN or an infinity in them.

    By their extremes, which a NaN spoils: twenty times as fast as asking each number, and one synchronisation with the device.
    """
    filled = {name: tensor for name, tensor in tensors.items() if tensor.numel()}
    if not filled:
        return []
    extremes = torch.stack([end.float() for tensor in filled.values() for end in torch.aminmax(tensor)])
    finite = torch.isfinite(extremes).reshape(-1, 2).all(dim=1).tolist()
    return [name for name, whole in zip(filled, finite, strict=True) if not whole]


def mismatch(stored: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str | None:
    """The first difference in names, types and shapes, as a sentence."""
    if missing := sorted(set(wanted) - set(stored)):
        return f"{missing[0]} is missing from the checkpoint"
    if extra := sorted(set(stored) - set(wanted)):
        return f"{extra[0]} is not in the model"
    for name, tensor in stored.items():
        other = wanted[name]
        if (tensor.dtype, tensor.shape) != (other.dtype, other.shape):
            return f"{name} is {tensor.dtype} {list(tensor.shape)} in the checkpoint and {other.dtype} {list(other.shape)} in the model"
    return None


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors: "the same weights" means the same digest."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name}\n{tensor.dtype}\n{list(tensor.shape)}\n".encode())
        total.update(tensor_bytes(tensor))
    return total.hexdigest()


def _plain_optimizer(trainer: Trainer) -> torch.optim.Optimizer:
    """The optimizer inside accelerate's wrapper."""
    return getattr(trainer.optimizer, "optimizer", trainer.optimizer)


def _scaler(trainer: Trainer) -> Any:
    return getattr(trainer.accelerator, "scaler", None)
