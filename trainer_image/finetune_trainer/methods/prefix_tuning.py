"""Prefix tuning by PEFT."""

from __future__ import annotations

from typing import Any, cast

from peft import PrefixTuningConfig

from finetune_api.v1alpha1.methods.prompts import PrefixTuning
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.prompts import TASKS, prompt_method


def configure(setting: Setting) -> PrefixTuningConfig:
    options = setting.stage.method.prefix_tuning or PrefixTuning()
    return PrefixTuningConfig(
        task_type=TASKS[setting.plain.head],
        num_virtual_tokens=options.num_virtual_tokens,
        prefix_projection=options.prefix_projection,
        encoder_hidden_size=cast(Any, options.encoder_hidden_size or setting.plain.model.config.hidden_size),
    )


METHOD = prompt_method(configure)
