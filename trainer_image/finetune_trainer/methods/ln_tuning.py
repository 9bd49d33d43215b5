"""Tuning of the norms by PEFT. They are found by what they are, not by name: each architecture calls them differently."""

from __future__ import annotations

from peft import LNTuningConfig

from finetune_api.v1alpha1.methods.vectors import LnTuning
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.peft_models import peft_method
from finetune_trainer.methods.targets import matching, trained_whole


def configure(setting: Setting) -> LNTuningConfig:
    options = setting.stage.method.ln_tuning or LnTuning()
    model, whole = setting.plain.model, trained_whole(setting)
    norms = [
        name
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__
        and next(module.parameters(recurse=False), None) is not None
        and name.startswith(f"{model.base_model_prefix}.")
    ]
    chosen = (
        norms if options.target_modules is None else matching(norms, options.target_modules, setting.field("targetModules"), what="norm")
    )
    return LNTuningConfig(target_modules=chosen, modules_to_save=whole or None)


METHOD = peft_method(configure)
