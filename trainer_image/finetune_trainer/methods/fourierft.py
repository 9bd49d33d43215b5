"""FourierFT by PEFT; which coefficients are trained is the same in every stage, and saved as a seed."""

from __future__ import annotations

from peft import FourierFTConfig

from finetune_api.v1alpha1.methods.updates import FourierFt
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.peft_models import peft_method, placed
from finetune_trainer.methods.targets import check_frequencies, turned


def configure(setting: Setting) -> FourierFTConfig:
    options = setting.stage.method.fourierft or FourierFt()
    place = placed(setting, options)
    check_frequencies(setting, place["target_modules"], options.n_frequency)
    return FourierFTConfig(
        n_frequency=options.n_frequency,
        scaling=options.scaling,
        init_weights=True,  # zeros: PEFT's random start would change the model before the first step
        random_loc_seed=777,  # PEFT's own, not the stage's: a stage that continues must train the same coefficients
        fan_in_fan_out=turned(setting.plain.model, place["target_modules"]),
        **place,
    )


METHOD = peft_method(configure)
