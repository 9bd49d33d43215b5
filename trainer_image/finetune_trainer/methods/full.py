"""Full fine-tuning: every weight is trained, deeper layers slower and chosen parameters apart where the manifest says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.layers import ParameterGroup
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Method, Setting
from finetune_trainer.methods.layering import depths
from finetune_trainer.methods.patterns import matching


def check(setting: Setting) -> None:
    """Raise TrainerError(InvalidSpec) where a group names no parameter, or one that another group has."""
    members(setting.plain.model, groups_of(setting.stage), setting.field("groups"))


def groups_of(stage: Stage) -> Sequence[ParameterGroup]:
    return (stage.method.full.groups if stage.method.full is not None else None) or ()


def members(model: nn.Module, groups: Sequence[ParameterGroup], where: str) -> dict[str, ParameterGroup]:
    """The group of each parameter that has one."""
    found: dict[str, ParameterGroup] = {}
    owners: dict[str, int] = {}
    for index, group in enumerate(groups):
        for name in sorted(matching(model, group.parameters, where=f"{where}[{index}].parameters")):
            if name in owners:
                raise TrainerError(
                    Reason.INVALID_SPEC,
                    f"{name} is in groups[{owners[name]}] already: a parameter learns at one rate; make the patterns narrower",
                    where=f"{where}[{index}].parameters",
                )
            found[name], owners[name] = group, index
    return found


def apply(setting: Setting) -> nn.Module:
    """Train everything; rows of added tokens are part of it."""
    check(setting)
    module: nn.Module = setting.plain.model
    module.requires_grad_(True)
    return module


def rates(module: nn.Module, stage: Stage) -> Mapping[str, float]:
    """Discriminative learning rates (Howard and Ruder 2018): the head's is the declared one, each layer's a share of that above it; a group's
    factor comes on top."""
    decay = stage.method.full.layer_decay if stage.method.full is not None else None
    found: dict[str, float] = {}
    if decay is not None:
        levels = depths(module)
        top = max(levels.values())
        found = {name: decay ** (top - depth) for name, depth in levels.items()}
    for name, group in members(module, groups_of(stage), "groups").items():
        if group.learning_rate_factor is not None:
            found[name] = found.get(name, 1.0) * group.learning_rate_factor
    return found


def decays(module: nn.Module, stage: Stage) -> Mapping[str, float]:
    grouped = members(module, groups_of(stage), "groups")
    return {name: group.weight_decay for name, group in grouped.items() if group.weight_decay is not None}


METHOD = Method(apply, check=check, rates=rates, decays=decays)
