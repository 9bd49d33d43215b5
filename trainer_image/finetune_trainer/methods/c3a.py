"""C³A by PEFT."""

from __future__ import annotations

from peft import C3AConfig

from finetune_api.v1alpha1.methods.updates import C3a
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.peft_models import peft_method, placed
from finetune_trainer.methods.targets import check_divides


def configure(setting: Setting) -> C3AConfig:
    options = setting.stage.method.c3a or C3a()
    place = placed(setting, options)
    check_divides(setting, place["target_modules"], options.block_size, "blockSize", sides=("inputs", "outputs"))
    return C3AConfig(
        block_size=options.block_size,
        init_weights=True,  # zeros: PEFT's random start would change the model before the first step
        **place,
    )


METHOD = peft_method(configure)
