"""OFT by PEFT."""

from __future__ import annotations

from peft import OFTConfig

from finetune_api.v1alpha1.methods.updates import Oft
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.peft_models import peft_method, placed
from finetune_trainer.methods.targets import check_divides


def configure(setting: Setting) -> OFTConfig:
    options = setting.stage.method.oft or Oft()
    place = placed(setting, options)
    check_divides(setting, place["target_modules"], options.block_size, "blockSize", sides=("inputs",))
    return OFTConfig(
        r=0,
        oft_block_size=options.block_size,
        coft=options.coft,
        eps=options.epsilon,
        block_share=options.block_share,
        use_cayley_neumann=False,  # the exact rotation: what a series leaves out would show in the merged weights
        **place,
    )


METHOD = peft_method(configure)
