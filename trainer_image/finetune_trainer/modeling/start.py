"""What a stage starts from: the base model, and everything that earlier stages changed in it.

Nothing is ever written into a copy of the base model between stages. A hand-over holds what differs: weights by their plain names, heads
by their kind, adapters. So it is small where little was trained, and it needs no other hand-over to be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import torch

from finetune_api.v1alpha1.stage import Objective

Tensors = Mapping[str, torch.Tensor]


class Head(StrEnum):
    """What a model ends in. An objective decides it; two objectives with the same head can follow each other without a new one."""

    CAUSAL = "causal"
    MASKED = "masked"
    CLASSIFICATION = "classification"


HEADS: Mapping[Objective, Head] = {
    Objective.CAUSAL_LANGUAGE_MODELING: Head.CAUSAL,
    Objective.SUPERVISED: Head.CAUSAL,
    Objective.MASKED_LANGUAGE_MODELING: Head.MASKED,
    Objective.CLASSIFICATION: Head.CLASSIFICATION,
}


@dataclass(frozen=True)
class Adapter:
    """A finished low-rank update. `tensors` has PEFT's names without an adapter's: MODULE.lora_A.weight, .lora_B.weight, .lora_magnitude_vector.weight."""

    r: int
    alpha: float
    rs_lora: bool
    dora: bool
    targets: list[str]
    """Full names of the modules that it is on, in the plain model."""
    tensors: Tensors
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Of modules whose rank is not `r`, by their full names."""
    alphas: Mapping[str, float] = field(default_factory=dict)
    """Of modules whose scale is not made from `alpha`."""

    def rank(self, name: str) -> int:
        return self.ranks.get(name, self.r)

    def scale(self, name: str) -> float:
        """By which a module's update is multiplied."""
        rank = self.rank(name)
        return self.alphas.get(name, self.alpha) / (rank**0.5 if self.rs_lora else rank)


@dataclass(frozen=True)
class Start:
    """What a stage starts from. Immutable; `handover` makes the next one."""

    model: Path
    """The base model's folder, or its .gguf file."""
    weights: Tensors = field(default_factory=dict)
    """Weights of the backbone that are not the base's any more, by their names in the plain model, fp32."""
    heads: Mapping[Head, Tensors] = field(default_factory=dict)
    """Heads that earlier stages ended with. A head that is not the coming stage's is archived: kept for suites with its objective."""
    adapters: tuple[Adapter, ...] = ()
    """Stacked adapters, frozen, in the order in which they were trained."""
    trained: Tensors | None = None
    """`continue` after lora: the trainable state of the same structure, which trains on."""
    labels: list[str] | None = None
    """The classes of heads[CLASSIFICATION], in their order."""
    extended: bool = False
    """Whether rows for added tokens are in `weights`: the base's own vocabulary is too short then."""

    @staticmethod
    def base(model: Path) -> Start:
        """The start of a job: the base model as it is."""
        return Start(model=model)

    def describe(self) -> str:
        """One sentence for logs and the report."""
        parts = [f"{len(self.weights)} tuned weights" if self.weights else "its own weights"]
        if self.adapters:
            parts.append(f"{len(self.adapters)} stacked adapter{'s' if len(self.adapters) > 1 else ''}, frozen")
        if self.trained is not None:
            parts.append("an adapter that trains on")
        if self.heads:
            parts.append(f"heads: {', '.join(sorted(self.heads))}")
        return f"{self.model.name} with {'; '.join(parts)}"
