"""AdamW for weights that are kept in bf16 and nowhere else: every step is made in fp32, and rounded by chance (arXiv 2010.06192).

bf16 has eight bits: the next number is up to one in 128 away, and a usual step changes a weight by less than half of that. Rounded to the nearest,
it would be lost each time. Rounded up with the probability of where it lies between the two neighbours it arrives on average. The same
holds for AdamW's averages, which change by a thousandth a step: so these are bf16 too, rounded the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, overload

import torch
from transformers import TrainingArguments

CHUNK: Final = 1 << 22
"""Numbers that are in fp32 at a time: a weight's step needs no copy of the whole of it."""
_LOW: Final = 0xFFFF
"""The bits of a float that bf16 lacks."""
_STRIDE: Final = 0x9E3779B97F4A7C15


def rounded(values: torch.Tensor, chances: torch.Tensor) -> torch.Tensor:
    """The fp32 values as bf16, each one of its two neighbours. chances: int32, even over 0 to 65535.

    The mean over all chances is the value, for both signs: what is added to the bits of a float grows its magnitude. Infinities and NaN stay.
    """
    up = ((values.view(torch.int32) + chances) & ~_LOW).view(torch.float32)
    return torch.where(torch.isfinite(values), up, values).to(torch.bfloat16)


class RoundedAdamW(torch.optim.Optimizer):
    """AdamW (arXiv 1711.05101) in eight bytes a parameter: weight, gradient and the two averages in bf16.

    The chances of a step follow from the seed and the step's number, so that a run that goes on from a checkpoint rounds as one that was
    never stopped.
    """

    def __init__(self, params: Any, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0, seed: int = 0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "seed": seed})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = closure() if closure is not None else None
        with torch.no_grad():
            self._step()
        return loss

    def _step(self) -> None:
        generators: dict[tuple[torch.device, int], torch.Generator] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                state["step"] += 1
                key = parameter.device, state["step"]
                if key not in generators:
                    seed = (group["seed"] * _STRIDE + state["step"]) % 2**63
                    generators[key] = torch.Generator(parameter.device).manual_seed(seed)
                _update(parameter, parameter.grad, state, group, generators[key])


def _update(
    parameter: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any], generator: torch.Generator
) -> None:
    """One parameter's step, a chunk at a time."""
    (first, second), step = group["betas"], state["step"]
    corrections = 1 - first**step, 1 - second**step
    flat = (parameter.data.view(-1), gradient.reshape(-1), state["exp_avg"].view(-1), state["exp_avg_sq"].view(-1))
    for weight, slope, mean, square in zip(*(tensor.split(CHUNK) for tensor in flat), strict=True):
        chances = torch.empty(weight.shape, dtype=torch.int64, device=weight.device).random_(generator=generator)
        found = slope.float()
        new_mean = mean.float().lerp_(found, 1 - first)
        new_square = square.float().mul_(second).addcmul_(found, found, value=1 - second)
        new = weight.float().mul_(1 - group["lr"] * group["weight_decay"])
        scale = (new_square / corrections[1]).sqrt_().add_(group["eps"])
        new.addcdiv_(new_mean, scale, value=-group["lr"] / corrections[0])
        for place, value, bits in ((weight, new, 0), (mean, new_mean, 16), (square, new_square, 32)):
            place.copy_(rounded(value, ((chances >> bits) & _LOW).int()))


def rounded_adamw(arguments: TrainingArguments) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """What Trainer makes its optimizer of."""
    return RoundedAdamW, {
        "lr": arguments.learning_rate,
        "betas": (arguments.adam_beta1, arguments.adam_beta2),
        "eps": arguments.adam_epsilon,
        "seed": arguments.seed,
    }
