"""VeRA by PEFT; its random matrices are the same in every stage, and saved."""

from __future__ import annotations

from peft import VeraConfig

from finetune_api.v1alpha1.methods.updates import Vera
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.peft_models import peft_method, placed
from finetune_trainer.methods.targets import turned


def configure(setting: Setting) -> VeraConfig:
    options = setting.stage.method.vera or Vera()
    place = placed(setting, options)
    return VeraConfig(
        r=options.r,
        projection_prng_key=0,  # not the stage's seed: a stage that continues must find the same matrices
        save_projection=True,
        vera_dropout=options.dropout,
        d_initial=options.initial_d,
        fan_in_fan_out=turned(setting.plain.model, place["target_modules"]),
        **place,
    )


METHOD = peft_method(configure)
