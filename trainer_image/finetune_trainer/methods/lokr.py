"""LoKr by PEFT."""

from __future__ import annotations

from typing import Any, cast

from peft import LoKrConfig

from finetune_api.v1alpha1.methods.updates import LoKr
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.peft_models import peft_method, placed
from finetune_trainer.methods.targets import check_rank


def configure(setting: Setting) -> LoKrConfig:
    options = setting.stage.method.lokr or LoKr()
    place = placed(setting, options)
    check_rank(setting, place["target_modules"], {}, options.r)
    return LoKrConfig(
        r=options.r,
        alpha=cast(Any, options.alpha),
        decompose_both=options.decompose_both,
        decompose_factor=options.decompose_factor,
        rank_dropout=options.rank_dropout,
        module_dropout=options.module_dropout,
        **place,
    )


METHOD = peft_method(configure)
