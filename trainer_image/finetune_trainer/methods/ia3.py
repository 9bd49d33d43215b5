"""(IA)³ by PEFT, on the modules that it has for an architecture unless the manifest names others."""

from __future__ import annotations

from peft import IA3Config
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.vectors import Ia3
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.peft_models import peft_method
from finetune_trainer.methods.targets import linear_modules, matching, trained_whole, turned


def configure(setting: Setting) -> IA3Config:
    options = setting.stage.method.ia3 or Ia3()
    whole = trained_whole(setting)
    linear = linear_modules(setting.plain, avoid=whole)
    kind = setting.plain.model.config.model_type
    names, inner = options.target_modules, options.feedforward_modules or []
    if names is None:
        names = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(kind)
        inner = inner or TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind, [])
    if names is None:
        endings = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"PEFT has no modules of its own for {kind} models: name those of keys, values and the second feed-forward layer; there are {', '.join(endings)}",
            where=setting.field("targetModules"),
        )
    chosen = matching(linear, names, setting.field("targetModules"), what="linear module")
    return IA3Config(
        target_modules=chosen,
        feedforward_modules=matching(chosen, inner, setting.field("feedforwardModules"), what="module among targetModules"),
        fan_in_fan_out=turned(setting.plain.model, chosen),
        modules_to_save=whole or None,
    )


METHOD = peft_method(configure)
