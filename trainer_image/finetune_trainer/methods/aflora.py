"""AFLoRA (arXiv 2403.13269): LoRA's matrices times trained vectors, ΔW = Λb·B·Λd·A, and the matrices freeze one by one.

It is PEFT's LoRA with a parametrization on each matrix, so that it merges, hands over and is published as a plain LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from peft import LoraConfig
from torch import nn
from torch.nn.utils import parametrize

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.updates import AfLora
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import SHOWN, Course, Length, Method, Setting
from finetune_trainer.methods.peft_models import TRAINED, adapted, placed
from finetune_trainer.methods.stacks import lora_layers
from finetune_trainer.methods.targets import check_rank, turned
from finetune_trainer.modeling.base import seeded

WINDOW: Final = 10
"""Steps whose gradients are averaged before the scores change."""
KEEP_MEAN: Final = 0.85
KEEP_SPREAD: Final = 0.95
ORIGINAL: Final = ".parametrizations.weight.original"


class RowsTimes(nn.Module):
    """A matrix whose rows are multiplied by a trained vector."""

    def __init__(self, rows: int, start: float) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.full((rows,), start))

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        return self.vector[:, None] * matrix


def configure(setting: Setting) -> LoraConfig:
    options = setting.stage.method.aflora or AfLora()
    place = placed(setting, options)
    check_rank(setting, place["target_modules"], {}, options.r)
    return LoraConfig(
        r=options.r,
        lora_alpha=options.r,  # the vectors scale, nothing else does
        lora_dropout=options.dropout,
        fan_in_fan_out=turned(setting.plain.model, place["target_modules"]),
        **place,
    )


def apply(setting: Setting) -> nn.Module:
    """A and B by Kaiming, the vectors as VeRA has them: d at a small constant, b at zero, so that it begins at the base."""
    options, config = setting.stage.method.aflora or AfLora(), configure(setting)
    module = adapted(setting, config, whole=config.modules_to_save or ())
    with seeded(setting.seed):
        for layer in lora_layers(module).values():
            a, b = layer.lora_A[TRAINED], layer.lora_B[TRAINED]
            nn.init.kaiming_uniform_(b.weight, a=math.sqrt(5))
            parametrize.register_parametrization(a, "weight", RowsTimes(a.weight.shape[0], options.initial_d))
            parametrize.register_parametrization(b, "weight", RowsTimes(b.weight.shape[0], 0.0))
    return module


def frozen_after(options: AfLora, length: Length) -> int:
    """The step after which all matrices are frozen."""
    return length.steps - int(options.final_share * length.steps)


def fits(setting: Setting, length: Length) -> None:
    """Raise TrainerError(InvalidSpec) where the matrices could not be frozen one by one: freezing begins, or the first scores are there, when it ends."""
    options = setting.stage.method.aflora or AfLora()
    end = frozen_after(options, length)
    if end <= WINDOW:
        least = math.floor(WINDOW / (1 - options.final_share)) + 1
        mend = f"write less than {(length.steps - WINDOW) / length.steps:.3g}, or " if length.steps > WINDOW else ""
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"all matrices shall be frozen after step {end} of {length.steps} (finalShare {options.final_share:g}), and the scores that say which goes "
            f"first are there after step {WINDOW}: {mend}train for {least} optimizer steps or more",
            where=setting.field("finalShare"),
        )
    if options.initial_steps is not None and options.initial_steps >= end:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"all matrices shall be frozen after step {end} of {length.steps}, and initialSteps {options.initial_steps} leaves no step to freeze them "
            "one by one: lower initialSteps or finalShare, or train longer",
            where=setting.field("initialSteps"),
        )


class Freezing(Course):
    """Freezes the matrices with the lowest scores, a growing share of them; what is frozen stays so."""

    def __init__(self, module: nn.Module, stage: Stage, length: Length) -> None:
        options = stage.method.aflora or AfLora()
        self._matrices = {name: parameter for name, parameter in module.named_parameters() if name.endswith(ORIGINAL)}
        self._end, asked = frozen_after(options, length), options.initial_steps
        # An epoch, but where a stage is so short that none would be left.
        self._begin = asked if asked is not None else min(length.steps_per_epoch, self._end // 2)
        self._sum: dict[str, torch.Tensor] = {}
        self._mean: dict[str, torch.Tensor] = {}
        self._spread: dict[str, torch.Tensor] = {}
        self._frozen: dict[str, int] = {}
        """After which step, in the order in which they froze."""

    def share(self, step: int) -> float:
        """Of the matrices that are frozen after this many steps."""
        if step < self._begin:
            return 0.0
        return 1.0 if step >= self._end else 1.0 - (1.0 - (step - self._begin) / (self._end - self._begin)) ** 3

    def begin(self, step: int) -> None:
        for name in self._frozen:
            self._matrices[name].requires_grad_(False)

    def before_update(self, step: int) -> None:
        """Take the gradients into the averages. A frozen matrix has none, and needs no score any more."""
        for name, matrix in self._matrices.items():
            if matrix.grad is not None and matrix.requires_grad:
                seen = matrix.grad.detach().abs()
                self._sum[name] = self._sum[name] + seen if name in self._sum else seen.clone()
        if step % WINDOW == 0:
            for name, total in self._sum.items():
                found = total / WINDOW
                mean = self._mean.get(name, torch.zeros_like(found))
                spread = self._spread.get(name, torch.zeros_like(found))
                self._mean[name] = mean = KEEP_MEAN * mean + (1 - KEEP_MEAN) * found
                self._spread[name] = KEEP_SPREAD * spread + (1 - KEEP_SPREAD) * (found - mean).abs()
            self._sum = {}

    def after_update(self, step: int) -> None:
        wanted = int(self.share(step) * len(self._matrices))
        if wanted <= len(self._frozen) or not self._mean:  # nothing has a score before the first window is full
            return
        scores = {name: self.score(name) for name in self._matrices if name not in self._frozen}
        for name in sorted(scores, key=lambda name: (scores[name], name))[: wanted - len(self._frozen)]:
            self._frozen[name] = step
            self._matrices[name].requires_grad_(False)
            self._matrices[name].grad = None
            for kept in (self._sum, self._mean, self._spread):
                kept.pop(name, None)

    def score(self, name: str) -> float:
        """How much a matrix still matters: the mean of its sensitivity times how uncertain that is."""
        return float((self._mean[name] * self._spread[name]).mean()) if name in self._mean else 0.0

    def tensors(self) -> Mapping[str, torch.Tensor]:
        kinds = {"sum": self._sum, "mean": self._mean, "spread": self._spread}
        return {f"{kind}|{name}": tensor for kind, own in kinds.items() for name, tensor in own.items()}

    def document(self) -> dict[str, Any]:
        return {"frozen": list(self._frozen.items())}

    def load(self, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> None:
        self._frozen = dict(document.get("frozen", ()))
        for kind, own in (("sum", self._sum), ("mean", self._mean), ("spread", self._spread)):
            own.clear()
            for key, tensor in tensors.items():
                of, _, name = key.partition("|")
                if of == kind:
                    own[name] = tensor.to(self._matrices[name].device)

    def summary(self) -> dict[str, Any]:
        """The matrices in the order in which they froze, and after which step each did."""
        return {"frozen": self._names(), "frozenAfter": list(self._frozen.values())}

    def told(self) -> dict[str, str]:
        names, steps = self._names(), list(self._frozen.values())
        if not names:
            return {"frozen": f"none of {len(self._matrices)} matrices"}
        return {
            "frozen": f"{len(names)} of {len(self._matrices)} matrices, by their scores, after steps {steps[0]} to {steps[-1]}",
            "frozen after so many steps": ", ".join(f"{steps[at]}: {at + 1} of them" for at in _quarters(len(steps))),
            "frozen first": ", ".join(names[:SHOWN]),
        } | ({"frozen last": ", ".join(names[SHOWN:][-SHOWN:])} if len(names) > SHOWN else {})

    def _names(self) -> list[str]:
        return [name.removesuffix(ORIGINAL).removeprefix("base_model.model.") for name in self._frozen]

    def end(self) -> None:
        for matrix in self._matrices.values():
            matrix.requires_grad_(True)


def _quarters(count: int) -> list[int]:
    """Where a quarter, half, three quarters and all of so many are reached."""
    return sorted({max(count * part // 4 - 1, 0) for part in range(1, 5)})


def course(module: nn.Module, stage: Stage, length: Length) -> Course:
    return Freezing(module, stage, length)


METHOD = Method(apply, check=configure, fits=fits, course=course)
