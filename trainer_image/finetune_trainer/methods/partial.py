"""Partial: parameters chosen by patterns of their names, by depth, or by their share of the model."""

from __future__ import annotations

import itertools

from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.partial import Partial
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Method, Setting
from finetune_trainer.methods.freezing import train_only
from finetune_trainer.methods.layering import depths
from finetune_trainer.methods.patterns import matching


def chosen(setting: Setting) -> set[str]:
    """What the stage's one choice names.

    Raises TrainerError(InvalidSpec) where a pattern matches nothing, nothing is left to train, or a new weight would stay random.
    """
    options, plain, where = setting.stage.method.partial, setting.plain, setting.field()
    assert options is not None, "required by a rule"
    if options.trained is not None:
        trained = matching(plain.model, options.trained, where=f"{where}.trained")
    elif options.frozen is not None:
        trained = {name for name, _ in plain.model.named_parameters()} - matching(plain.model, options.frozen, where=f"{where}.frozen")
    elif options.last_layers is not None:
        trained = _last_layers(plain.model, options.last_layers, f"{where}.lastLayers")
    else:
        trained = _share(plain.model, options, f"{where}.share")
    if not trained:
        raise TrainerError(Reason.INVALID_SPEC, "these patterns freeze every parameter of the model: nothing would be trained", where=where)
    random = sorted(plain.new - trained)
    if random:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"the model has no trained weights for {', '.join(random[:4])}, so they start at random and must be trained: "
            f"add {random[0].rsplit('.', 1)[0] + '.*'!r} to `trained`, or take it out of `frozen`",
            where=where,
        )
    return trained


def _last_layers(model: nn.Module, count: int, where: str) -> set[str]:
    """The parameters of the last layers and above them."""
    found = depths(model)
    layers = max(found.values()) - 1
    if not 0 < count < layers:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"this model has {layers} layers: write 1 to {layers - 1}, or choose `type: full` to train them all"
            if layers > 1
            else "this model has no layers to choose among: write patterns in `trained`",
            where=where,
        )
    return {name for name, depth in found.items() if depth > layers - count}


def _share(model: nn.Module, options: Partial, where: str) -> set[str]:
    """As many whole layers from the top, with what stands above them, as the share has room for; one at least."""
    found, sizes = depths(model), {name: parameter.numel() for name, parameter in model.named_parameters()}
    top, total = max(found.values()), sum(sizes.values())
    levels = [sum(sizes[name] for name, depth in found.items() if depth == level) for level in range(top, 0, -1)]
    fitting = sum(size <= (options.share or 0.0) * total for size in itertools.accumulate(levels))
    if fitting < 2:
        least = sum(levels[:2]) / total
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"the topmost layer and what stands above it are {100 * least:.2f} % of this model's parameters: "
            f"write at least {least + 0.00005:.4f}, or patterns in `trained`",
            where=where,
        )
    return {name for name, depth in found.items() if depth > top - fitting}


def apply(setting: Setting) -> nn.Module:
    return train_only(setting.plain, chosen(setting), setting.added)


METHOD = Method(apply, check=chosen)
