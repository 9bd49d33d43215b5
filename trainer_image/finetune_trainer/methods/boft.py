"""BOFT by PEFT."""

from __future__ import annotations

from peft import BOFTConfig

from finetune_api.v1alpha1.methods.updates import Boft
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.peft_models import peft_method, placed
from finetune_trainer.methods.targets import check_divides


def configure(setting: Setting) -> BOFTConfig:
    options = setting.stage.method.boft or Boft()
    place = placed(setting, options)
    check_divides(setting, place["target_modules"], options.block_size, "blockSize", sides=("inputs",))
    return BOFTConfig(
        boft_block_size=options.block_size,
        boft_n_butterfly_factor=1,
        boft_dropout=options.dropout,
        **place,
    )


METHOD = peft_method(configure)
