"""An optimizer's state by the names of its parameters: indexes would silently move where a parameter is added or a group split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from finetune_api.constants import Reason
from finetune_trainer.checkpoint.snapshot import Snapshot
from finetune_trainer.errors import TrainerError

FILE: Final = "optimizer"
SEPARATOR: Final = "|"
"""Between a state's name and its parameter's in tensor names (`exp_avg|model.layers.0.mlp.up_proj.weight`)."""


def capture_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> Snapshot:
    """Per-parameter tensors as safetensors; numbers and group options as JSON. `names`: `id(parameter)` → name."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    groups = []
    for group in optimizer.param_groups:
        options = {key: _plain(value) for key, value in group.items() if key != "params"}
        groups.append({"params": [names[id(parameter)] for parameter in group["params"]], "options": options})
        for parameter in group["params"]:
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{key}{SEPARATOR}{names[id(parameter)]}"] = value
                else:
                    scalars.setdefault(names[id(parameter)], {})[key] = value
    return Snapshot({FILE: tensors}, {FILE: {"class": type(optimizer).__name__, "groups": groups, "scalars": scalars}})


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]
) -> None:
    """Put the state back. Raises TrainerError(CheckpointInvalid) where the optimizer is of another kind or has other parameters."""
    groups = optimizer.param_groups
    ours = [[names[id(parameter)] for parameter in group["params"]] for group in groups]
    theirs = [group["params"] for group in document["groups"]]
    if document["class"] != type(optimizer).__name__ or [sorted(group) for group in ours] != [sorted(group) for group in theirs]:
        raise TrainerError(
            Reason.CHECKPOINT_INVALID,
            f"the checkpoint's optimizer ({document['class']}, {sum(map(len, theirs))} parameters) is not the one that trains"
            f" ({type(optimizer).__name__}, {sum(map(len, ours))} parameters)",
        )
    index = {name: position for position, name in enumerate(name for group in ours for name in group)}
    state: dict[int, dict[str, Any]] = {}
    for name, values in document["scalars"].items():
        state.setdefault(index[name], {}).update(values)
    for key, tensor in tensors.items():
        kind, _, name = key.partition(SEPARATOR)
        state.setdefault(index[name], {})[kind] = tensor
    optimizer.load_state_dict(
        {
            "state": state,
            "param_groups": [
                {**{key: _like(value, group.get(key)) for key, value in stored["options"].items()}, "params": [index[name] for name in own]}
                for group, stored, own in zip(groups, document["groups"], ours, strict=True)
            ],
        }
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else list(value) if isinstance(value, tuple) else value


def _like(value: Any, present: Any) -> Any:
    """JSON has no tuples and no tensors: take the type that the live optimizer has there."""
    if isinstance(present, tuple):
        return tuple(value)
    if isinstance(present, torch.Tensor):
        return torch.tensor(value, dtype=present.dtype, device=present.device)
    return value
