"""P-tuning by PEFT."""

from __future__ import annotations

from peft import PromptEncoderConfig

from finetune_api.v1alpha1.methods.prompts import PTuning
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.prompts import TASKS, prompt_method


def configure(setting: Setting) -> PromptEncoderConfig:
    options = setting.stage.method.p_tuning or PTuning()
    return PromptEncoderConfig(
        task_type=TASKS[setting.plain.head],
        num_virtual_tokens=options.num_virtual_tokens,
        encoder_reparameterization_type=options.encoder_type.value,
        encoder_hidden_size=options.encoder_hidden_size or setting.plain.model.config.hidden_size,
        encoder_num_layers=options.encoder_num_layers,
        encoder_dropout=options.encoder_dropout,
    )


METHOD = prompt_method(configure)
