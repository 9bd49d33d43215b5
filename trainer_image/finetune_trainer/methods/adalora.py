"""AdaLoRA by PEFT: ranks are pruned where they matter least, on a schedule that a checkpoint carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import torch
from peft import AdaLoraConfig
from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.updates import AdaLora
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import SHOWN, Course, Length, Setting
from finetune_trainer.methods.peft_models import TRAINED, peft_method, placed
from finetune_trainer.methods.targets import check_rank, turned

AVERAGES: Final = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What PEFT's allocator remembers of each parameter."""
_UNKNOWN_STEPS: Final = 10**9
"""PEFT wants a length at once; the course sets it when it is known."""


def configure(setting: Setting) -> AdaLoraConfig:
    options = setting.stage.method.adalora or AdaLora()
    place = placed(setting, options)
    check_rank(setting, place["target_modules"], {}, options.init_r, "initR")
    return AdaLoraConfig(
        init_r=options.init_r,
        target_r=options.target_r,
        lora_alpha=cast(Any, options.alpha),
        lora_dropout=options.dropout,
        deltaT=options.interval,
        orth_reg_weight=options.orthogonality,
        total_step=_UNKNOWN_STEPS,
        fan_in_fan_out=turned(setting.plain.model, place["target_modules"]),
        **place,
    )


def before_and_after(options: AdaLora, length: Length) -> tuple[int, int]:
    """Steps before ranks are pruned, and at the end in which they stay."""
    return int(options.warmup_share * length.steps), int(options.final_share * length.steps)


def fits(setting: Setting, length: Length) -> None:
    """Raise TrainerError(InvalidSpec) where ranks could not be pruned bit by bit: no step is left for it, or no decision falls into those that are.

    PEFT prunes to `targetR` after the last of these steps, whatever was decided before: alone, that would be one cut.
    """
    options = setting.stage.method.adalora or AdaLora()
    before, after = before_and_after(options, length)
    end = length.steps - after
    if end - before < 2:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"{length.steps} optimizer steps leave none in which ranks could be pruned, after {before} and before the last {after}: "
            "train longer, or lower warmupShare and finalShare",
            where=setting.field("warmupShare" if before >= after else "finalShare"),
        )
    if (before // options.interval + 1) * options.interval >= end:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"of {length.steps} optimizer steps, ranks are pruned after step {before} (warmupShare) and until step {end} (finalShare), and no "
            f"multiple of {options.interval} lies between them: all would be cut at once: write an interval of at most {end - before - 1}, or train longer",
            where=setting.field("interval"),
        )


class Allocation(Course):
    """Prunes ranks after each step, and keeps the singular vectors orthogonal."""

    def __init__(self, module: Any, stage: Stage, length: Length) -> None:
        options = stage.method.adalora or AdaLora()
        self._tuner = module.base_model
        self._config = module.peft_config[TRAINED]
        self._config.total_step = length.steps
        self._config.tinit, self._config.tfinal = before_and_after(options, length)
        self._weight = options.orthogonality
        self._vectors = [parameter for name, parameter in module.named_parameters() if ".lora_A." in name or ".lora_B." in name]

    def loss(self) -> torch.Tensor | None:
        """PEFT's penalty, which it would add to a loss that the model computes itself: ours is computed outside."""
        if not self._weight:
            return None
        products = [vector @ vector.T if vector.shape[0] < vector.shape[1] else vector.T @ vector for vector in self._vectors]
        apart = [torch.linalg.norm(product - torch.eye(len(product), device=product.device)) for product in products]
        return self._weight * torch.stack(apart).mean()

    def after_update(self, step: int) -> None:
        self._tuner.update_and_allocate(step)

    def tensors(self) -> Mapping[str, torch.Tensor]:
        allocator = self._tuner.rankallocator
        return {f"{kind}|{name}": tensor for kind in AVERAGES for name, tensor in getattr(allocator, kind).items()}

    def document(self) -> dict[str, Any]:
        return {"rankPattern": self._config.rank_pattern}

    def load(self, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> None:
        self._config.rank_pattern = document.get("rankPattern")
        devices = {name: parameter.device for name, parameter in self._tuner.model.named_parameters()}
        for kind in AVERAGES:
            own = {name.removeprefix(f"{kind}|"): tensor for name, tensor in tensors.items() if name.startswith(f"{kind}|")}
            setattr(self._tuner.rankallocator, kind, {name: tensor.to(devices[name]) for name, tensor in own.items()})

    def summary(self) -> dict[str, Any]:
        """The rank that each module kept."""
        pattern = self._config.rank_pattern or {}
        return {"ranks": {name.partition(".lora_E")[0].removeprefix("base_model.model."): sum(kept) for name, kept in pattern.items()}}

    def told(self) -> dict[str, str]:
        ranks = self.summary()["ranks"]
        if not ranks:
            return {}
        order = sorted(ranks, key=lambda name: (-ranks[name], name))
        ends = {"highest ranks": order[:SHOWN], "lowest ranks": order[SHOWN:][-SHOWN:]}
        mean = sum(ranks.values()) / len(ranks)
        return {"ranks kept": f"{min(ranks.values())} to {max(ranks.values())} in {len(ranks)} modules, {mean:.3g} on average"} | {
            end: ", ".join(f"{name} {ranks[name]}" for name in names) for end, names in ends.items() if names
        }


def course(module: nn.Module, stage: Stage, length: Length) -> Course:
    return Allocation(module, stage, length)


METHOD = peft_method(configure, fits=fits, course=course)
