"""GraLoRA by PEFT."""

from __future__ import annotations

from typing import Any, cast

from peft import GraloraConfig

from finetune_api.v1alpha1.methods.updates import Gralora
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.peft_models import peft_method, placed
from finetune_trainer.methods.targets import check_divides, check_rank, turned


def configure(setting: Setting) -> GraloraConfig:
    options = setting.stage.method.gralora or Gralora()
    place = placed(setting, options)
    check_rank(setting, place["target_modules"], {}, options.r)
    check_divides(setting, place["target_modules"], options.k, "k", sides=("inputs", "outputs"))
    return GraloraConfig(
        r=options.r,
        gralora_k=options.k,
        alpha=cast(Any, options.alpha),
        gralora_dropout=options.dropout,
        hybrid_r=options.hybrid_r,
        fan_in_fan_out=turned(setting.plain.model, place["target_modules"]),
        **place,
    )


METHOD = peft_method(configure)
