"""HRA by PEFT."""

from __future__ import annotations

from peft import HRAConfig

from finetune_api.v1alpha1.methods.updates import Hra
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.peft_models import peft_method, placed
from finetune_trainer.methods.targets import check_rank


def configure(setting: Setting) -> HRAConfig:
    options = setting.stage.method.hra or Hra()
    place = placed(setting, options)
    check_rank(setting, place["target_modules"], {}, options.r)
    return HRAConfig(
        r=options.r,
        apply_GS=False,  # of pairs of equal reflections, with which it begins, that is a division by zero
        **place,
    )


METHOD = peft_method(configure)
