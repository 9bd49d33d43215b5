"""Which number types a stage computes in: decided once, before anything is built, and recorded.

transformers 5 loads a bf16 checkpoint as bf16, where at a rate of 2e-5 four of five weights never move: so what is trained is fp32, or is
asked for as bf16 and rounded stochastically (`engine/rounding.py`). A frozen base keeps the checkpoint's type on a GPU (memory) and is fp32 on a CPU (speed).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.layers import Weights
from finetune_api.v1alpha1.training import MixedPrecision
from finetune_trainer.errors import TrainerError


@dataclass(frozen=True)
class Precision:
    """Types of the weights that are trained and of those that are not, and the type that autocast computes in."""

    trainable: torch.dtype
    frozen: torch.dtype
    autocast: torch.dtype | None
    """None: no autocast."""

    def record(self) -> dict[str, str]:
        """As it stands in resolved.json."""
        return {
            "trainableWeights": type_name(self.trainable),
            "frozenWeights": type_name(self.frozen),
            "autocast": type_name(self.autocast) if self.autocast else "off",
        }


def resolve_precision(
    request: MixedPrecision,
    *,
    device: torch.device,
    checkpoint: torch.dtype,
    bf16_capable: bool,
    weights: Weights = Weights.FP32,
    where: str = "training.mixedPrecision",
) -> Precision:
    """Decide the types. weights: what is asked for those that are trained. Raises TrainerError(InvalidSpec) for what this device cannot compute."""
    cpu = device.type == "cpu"
    instead = "full: {weights: fp32}" if weights is Weights.BF16 else "auto or fp16"
    if weights is Weights.BF16:
        request = MixedPrecision.BF16  # a rule has seen to it that nothing else was asked for
    if request is MixedPrecision.FP16 and cpu:
        raise TrainerError(Reason.INVALID_SPEC, "fp16 needs a GPU, and this machine has none: write auto, bf16 or no", where=where)
    if request is MixedPrecision.BF16 and not cpu and not bf16_capable:
        raise TrainerError(Reason.INVALID_SPEC, f"this GPU cannot compute in bf16: write {instead}", where=where)
    autocast = {
        MixedPrecision.NO: None,
        MixedPrecision.BF16: torch.bfloat16,
        MixedPrecision.FP16: torch.float16,
        MixedPrecision.AUTO: None if cpu else torch.bfloat16 if bf16_capable else torch.float16,
    }[request]
    frozen = torch.float32 if cpu or autocast is None or not checkpoint.is_floating_point else checkpoint
    return Precision(trainable=torch.bfloat16 if weights is Weights.BF16 else torch.float32, frozen=frozen, autocast=autocast)


def apply_precision(model: nn.Module, precision: Precision) -> None:
    """Cast the weights in place; what is trained is known by requires_grad."""
    for parameter in model.parameters():
        wanted = precision.trainable if parameter.requires_grad else precision.frozen
        if parameter.is_floating_point() and parameter.dtype is not wanted:
            parameter.data = parameter.data.to(wanted)


def training_device() -> torch.device:
    """The first GPU that torch sees, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def bf16_capable(device: torch.device) -> bool:
    """Whether a GPU computes bf16 in hardware (not by emulation)."""
    return device.type == "cuda" and bool(torch.cuda.is_bf16_supported(including_emulation=False))


def type_name(dtype: torch.dtype) -> str:
    """float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")


def autocast(precision: Precision, device: torch.device) -> Any:
    """The context that a stage computes in."""
    return torch.autocast(device.type, dtype=precision.autocast or torch.bfloat16, enabled=precision.autocast is not None)
