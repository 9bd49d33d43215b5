"""What can be told of guards before a weight is loaded: whether a stage trains anything that has an anchor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from torch import nn
from transformers.pytorch_utils import Conv1D

from finetune_api.constants import Reason
from finetune_api.v1alpha1.objective import Objective
from finetune_api.v1alpha1.regularization import Anchor, Guard, GuardType
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.guards.change import ALL_NEW
from finetune_trainer.guards.mixout import NO_LINEAR
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.registry import method_of
from finetune_trainer.modeling.base import Plain, load_config
from finetune_trainer.modeling.sketch import sketch
from finetune_trainer.modeling.start import HEADS, Start

HOLDING: Final = (GuardType.L2SP, GuardType.EWC, GuardType.MIXOUT)
_CLASSIFIER: Final = "ForSequenceClassification"


def guard_problems(model: Path, stages: Sequence[Stage]) -> Iterator[TrainerError]:
    """Yield the guards that would find nothing to hold, where a stage trains chosen parameters: an adapter, and all of them, always give some."""
    for index, stage in enumerate(stages):
        holding = [(number, guard) for number, guard in enumerate(stage.regularization or []) if guard.type in HOLDING]
        if not holding or stage.method.row.adapter or not stage.method.asks_the_model:
            continue
        where = f"spec.stages[{index}]"
        try:
            plain = sketch(model, HEADS[stage.objective], where=where)
            method_of(stage.method.type).apply(Setting(plain, stage, where, Start.base(model)))
        except TrainerError:
            continue  # told of where methods are asked
        for number, guard in holding:
            if not _held(plain, guard, new_head=_new_head(model, stage, stages[:index], guard.anchor or Anchor.BASE)):
                text = NO_LINEAR if guard.type is GuardType.MIXOUT else ALL_NEW
                yield TrainerError(Reason.INVALID_SPEC, text, where=f"{where}.regularization[{number}].type", stage=stage.name)


def _held(plain: Plain, guard: Guard, *, new_head: bool) -> set[str]:
    """What is trained and has an anchor that this guard can use."""
    held = {name for name, parameter in plain.model.named_parameters() if parameter.requires_grad}
    if guard.type is GuardType.MIXOUT:
        held &= {f"{name}.weight" for name, module in plain.model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    return held - {*plain.head_names} if new_head else held


def _new_head(model: Path, stage: Stage, before: Sequence[Stage], anchor: Anchor) -> bool:
    """Whether the anchor has no such head: a classifier's, unless the base is one, or the stage starts from one and is held to that."""
    if stage.objective is not Objective.CLASSIFICATION:
        return False
    if any(name.endswith(_CLASSIFIER) for name in load_config(model).architectures or ()):
        return False
    starts_with_one = stage.compare_with is None and any(earlier.objective is Objective.CLASSIFICATION for earlier in before)
    return not (anchor is Anchor.STAGE_START and starts_with_one)
