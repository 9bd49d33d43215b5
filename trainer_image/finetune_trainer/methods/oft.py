"""OFT by PEFT. Constrained rotations are taken back to where they may be after each step, and not, as PEFT does it, in each forward pass."""

from __future__ import annotations

import dataclasses
from typing import Final

import torch
from peft import OFTConfig
from peft.tuners.oft.layer import OFTRotationModule
from torch import nn

from finetune_api.v1alpha1.methods.updates import Oft
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.methods.base import Course, Length, Method, Setting
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


class Constrained(Course):
    """A forward pass that changed weights would change a checkpoint that is being written, and a stage that was evaluated more often than another."""

    def __init__(self, module: nn.Module) -> None:
        self._rotations = rotations(module)

    def after_update(self, step: int) -> None:
        with torch.no_grad():
            for rotation in self._rotations:
                rotation.weight.copy_(rotation._project_batch(rotation.weight, eps=rotation.eps))


def rotations(module: nn.Module) -> list[OFTRotationModule]:
    return [part for part in module.modules() if isinstance(part, OFTRotationModule)]


def apply(setting: Setting) -> nn.Module:
    module = _PEFT.apply(setting)
    for rotation in rotations(module):
        rotation.coft = False  # the configuration, which is published, still says it
    return module


def course(module: nn.Module, stage: Stage, length: Length) -> Course:
    return Constrained(module) if (stage.method.oft or Oft()).coft else Course()


_PEFT: Final = peft_method(configure)
METHOD: Final[Method] = dataclasses.replace(_PEFT, apply=apply, course=course)
