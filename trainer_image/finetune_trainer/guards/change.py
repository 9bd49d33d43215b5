"""How far a stage's weights are from an anchor, weight by weight, and how a pull on that difference reaches what is trained.

A weight that is trained itself is compared with a copy of the anchor. Under a low-rank adapter the difference is that of the effective
weight, W + ΔW, because a single factor means nothing: A alone can be anything as long as B is zero. Weights that were made for the stage
(a new head, rows of added tokens) have no anchor and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.regularization import Anchor
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.peft_models import TRAINED
from finetune_trainer.methods.stacks import lora_layers
from finetune_trainer.modeling.base import load_plain
from finetune_trainer.modeling.few_bits import dense
from finetune_trainer.modeling.plain import low_rank, plain_weights
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Start

Tensors = dict[str, torch.Tensor]
ALL_NEW: Final = "every weight that this stage trains is new: there is nothing to hold; leave the guard out"


class Change(Protocol):
    """The difference of one weight from the anchor."""

    name: str
    """Of the weight, in the plain model."""

    def difference(self) -> torch.Tensor:
        """W less the anchor, float32, without gradients; of an adapted weight as (outputs, inputs)."""
        ...

    def pull(self, gradient: torch.Tensor) -> None:
        """Add to the gradients of what is trained, given the penalty's with respect to the difference."""
        ...

    def pull_square(self, strength: float, scale: float) -> torch.Tensor:
        """The penalty strength / 2 · ‖difference‖², its gradient times `scale` added. Returns the penalty."""
        ...


@dataclass
class Weight:
    """A weight that is trained itself."""

    name: str
    parameter: nn.Parameter
    anchor: torch.Tensor

    def difference(self) -> torch.Tensor:
        return self.parameter.detach() - self.anchor

    def pull(self, gradient: torch.Tensor) -> None:
        _add(self.parameter, gradient)

    def pull_square(self, strength: float, scale: float) -> torch.Tensor:
        difference = self.difference()
        _add(self.parameter, difference, strength * scale)
        return difference.square_().sum() * (strength / 2)


@dataclass
class Dense:
    """An adapted weight whose difference is not low-rank: of DoRA, or from an anchor that earlier stages have left. (outputs, inputs) in full."""

    name: str
    layer: LoraLayer
    offset: torch.Tensor | None
    """What has to be added to the adapter's own contribution."""

    def difference(self) -> torch.Tensor:
        return self._difference().detach()

    def pull(self, gradient: torch.Tensor) -> None:
        with torch.enable_grad():
            self._difference().backward(gradient)

    def pull_square(self, strength: float, scale: float) -> torch.Tensor:
        with torch.enable_grad():
            difference = self._difference()
            penalty = difference.square().sum() * (strength / 2)
            (penalty * scale).backward()
        return penalty.detach()

    def _difference(self) -> torch.Tensor:
        own = contribution(self.layer)
        return own if self.offset is None else own + self.offset


@dataclass
class LowRank:
    """An adapted weight: scale · B · A, less what that was at the anchor, never written out in full."""

    name: str
    layer: LoraLayer
    start: tuple[torch.Tensor, torch.Tensor] | None = field(default=None)
    """B and A at the anchor, where their product isn't zero."""

    def difference(self) -> torch.Tensor:
        left, right = self._factors()
        return self.layer.scaling[TRAINED] * (left @ right)

    def pull(self, gradient: torch.Tensor) -> None:
        a, b = factors(self.layer)
        scale = self.layer.scaling[TRAINED]
        _add(b, gradient @ a.detach().T, scale)
        _add(a, b.detach().T @ gradient, scale)

    def pull_square(self, strength: float, scale: float) -> torch.Tensor:
        """By r × r products: ‖L·R‖² = tr((LᵀL)(RRᵀ)), and the gradient by L is L(RRᵀ), by R (LᵀL)R."""
        a, b = factors(self.layer)
        left, right = self._factors()
        weight = strength * self.layer.scaling[TRAINED] ** 2
        inner, outer = left.T @ left, right @ right.T
        rank = a.shape[0]
        _add(b, left @ outer[:, :rank], weight * scale)
        _add(a, inner[:rank] @ right, weight * scale)
        return (inner * outer.T).sum() * (weight / 2)

    def _factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = (factor.detach() for factor in factors(self.layer))
        if self.start is None:
            return b, a
        start_b, start_a = self.start
        return torch.cat((b, -start_b), dim=1), torch.cat((a, start_a), dim=0)


def changes(model: StageModel, anchor: Anchor, *, tokenizer: Any, where: str) -> list[Change]:
    """The difference of every trained weight that has an anchor. Called where the stage starts: before a checkpoint is restored.

    anchor: the base model's weights, or those that the stage starts from. A copy of the anchor stays in memory for each weight that is
    trained itself, or that earlier stages have changed under an adapter.
    Raises TrainerError(InvalidSpec) where no weight has one.
    """
    layers = lora_layers(model.module)
    base = anchor_weights(model, tokenizer) if anchor is Anchor.BASE and changed_before(model.start) else None
    now = plain_weights(model.module) if base is not None and layers else {}
    found: list[Change] = []
    for name, layer in layers.items():
        weight = f"{name}.weight"
        found.append(_adapted(weight, layer, base=base, now=now, fresh=model.start.trained is None))
    for name, parameter in model.module.named_parameters():
        plain = plain_name(name)
        if not parameter.requires_grad or plain is None or plain in model.new or (base is not None and plain not in base):
            continue
        found.append(Weight(plain, parameter, parameter.detach().clone() if base is None else base[plain].to(parameter)))
    if not found:
        raise TrainerError(Reason.INVALID_SPEC, ALL_NEW, where=where)
    return found


def anchor_weights(model: StageModel, tokenizer: Any) -> Tensors:
    """The base model's weights by their plain names, fp32 on the CPU; without those that it lacks."""
    plain = base_model(model, tokenizer)
    return {name: tensor for name, tensor in plain_weights(plain.model).items() if name not in plain.new}


def base_model(model: StageModel, tokenizer: Any) -> Any:
    """The base with the stage's kind of head, as no stage has changed it."""
    return load_plain(Start.base(model.start.model), model.head, labels=model.labels, tokenizer=tokenizer, added=model.added)


def plain_name(name: str) -> str | None:
    """The name in the plain model of a parameter that is trained whole; None of an adapter's own, and of rows of added tokens."""
    if ".lora_" in name or ".parametrizations." in name:
        return None
    return name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")


def factors(layer: LoraLayer) -> tuple[nn.Parameter, nn.Parameter]:
    """A (rank, inputs) and B (outputs, rank) of the adapter that is trained."""
    return layer.lora_A[TRAINED].weight, layer.lora_B[TRAINED].weight


def contribution(layer: LoraLayer) -> torch.Tensor:
    """What the trained adapter adds to what lies under it, (outputs, inputs), with gradients. DoRA scales what lies under it too."""
    a, b = factors(layer)
    update = layer.scaling[TRAINED] * (b @ a)
    if TRAINED not in layer.lora_magnitude_vector:
        return update
    base = dense(layer.get_base_layer()).float()
    under = low_rank(layer, [name for name in layer.active_adapters if name != TRAINED])
    if layer.fan_in_fan_out:
        base, under = base.T, under.T
    factor = layer.lora_magnitude_vector[TRAINED].weight / torch.linalg.norm(base + update, dim=1)
    return factor[:, None] * (under + update) - under


def _adapted(weight: str, layer: LoraLayer, *, base: Tensors | None, now: Tensors, fresh: bool) -> Change:
    a, b = (factor.detach() for factor in factors(layer))
    own = None if fresh and not bool(b.any()) else contribution(layer).detach()
    if base is not None:
        moved = now[weight] - base[weight]
        moved = (moved.T if layer.fan_in_fan_out else moved).to(a)
        return Dense(weight, layer, moved - own if own is not None else moved)
    if TRAINED in layer.lora_magnitude_vector:
        return Dense(weight, layer, -own if own is not None else None)
    return LowRank(weight, layer, (b.clone(), a.clone()) if own is not None else None)


def changed_before(start: Start) -> bool:
    """Whether earlier stages have changed anything."""
    return bool(start.weights or start.adapters or start.heads or start.trained)


def _add(parameter: nn.Parameter, gradient: torch.Tensor, factor: float = 1.0) -> None:
    if not parameter.requires_grad:  # frozen for now by a schedule: with a gradient, even of zero, an optimizer would decay it
        return
    if parameter.grad is None:
        parameter.grad = (gradient * factor).to(parameter)
    else:
        parameter.grad.add_(gradient, alpha=factor)
