"""Gradual unfreezing and freezing: full tuning in which layers join from the top, or leave from the bottom, on a schedule.

The optimizer is built over all that the schedule ever trains; only `requires_grad` changes. What is trained at a step follows from the step's
number, so that nothing has to be remembered over a resume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.layers import Gradual, GradualDirection
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Course, Length, Method, Setting
from finetune_trainer.methods.full import apply
from finetune_trainer.methods.layering import depths


def changes_of(options: Gradual, top: int) -> int:
    """How often the schedule changes what is trained: until all have joined, or the topmost layer alone is left."""
    return math.ceil((top - 1) / options.layers)


def trained(options: Gradual, changes: int, top: int) -> range:
    """The depths that are trained after this many changes. 0 are the embeddings, `top` is what stands above the layers."""
    if options.direction is GradualDirection.UNFREEZING:
        return range(max(top - 1 - changes * options.layers, 0), top + 1)
    return range(min(changes * options.layers, top - 1), top + 1)


def steps_between(options: Gradual, length: Length) -> int:
    """Optimizer steps between two changes."""
    return options.every_steps or max(1, round((options.every_epochs or 1.0) * length.steps_per_epoch))


def fits(setting: Setting, length: Length) -> None:
    """Raise TrainerError(InvalidSpec) where the schedule ends after the stage does: some layers would never be trained, or never be frozen."""
    options = setting.stage.method.gradual
    assert options is not None, "required by a rule"
    changes, every = changes_of(options, max(depths(setting.plain.model).values())), steps_between(options, length)
    if every * changes < length.steps:
        return
    by_steps = options.every_steps is not None
    most = length.steps / changes if by_steps else length.steps / changes / length.steps_per_epoch
    raise TrainerError(
        Reason.INVALID_SPEC,
        f"the schedule changes {changes} times and would end after {every * changes} steps, and the stage ends after {length.steps}: "
        f"write less than {most:.3g}, or more `layers` at a change",
        where=setting.field("everySteps" if by_steps else "everyEpochs"),
    )


class Schedule(Course):
    """What is trained at which step."""

    def __init__(self, module: nn.Module, stage: Stage, length: Length) -> None:
        options = stage.method.gradual
        assert options is not None, "required by a rule"
        self._options, self._module = options, module
        self._depths = depths(module)
        self._top = max(self._depths.values())
        self._every = steps_between(options, length)
        self._changes = changes_of(options, self._top)

    def begin(self, step: int) -> None:
        self._set(step // self._every)

    def after_update(self, step: int) -> None:
        if step % self._every == 0:
            self._set(step // self._every)

    def _set(self, changes: int) -> None:
        now = trained(self._options, changes, self._top)
        for name, parameter in self._module.named_parameters():
            parameter.requires_grad_(self._depths[name] in now)
            if not parameter.requires_grad:
                parameter.grad = None

    def summary(self) -> dict[str, Any]:
        return {"changes": list(self._steps()), "direction": str(self._options.direction)}

    def told(self) -> dict[str, str]:
        direction, many = self._options.direction, self._options.layers
        whose = f"layer{'s' * (many != 1)} {'join' if direction is GradualDirection.UNFREEZING else 'leave'}{'s' * (many == 1)}"
        return {str(direction): f"{self._changes} changes, one every {self._every} steps, in which at most {many} {whose}"}

    def _steps(self) -> Iterator[int]:
        """After which steps something changes."""
        return (number * self._every for number in range(1, self._changes + 1))

    def end(self) -> None:
        self._module.requires_grad_(True)


def course(module: nn.Module, stage: Stage, length: Length) -> Course:
    return Schedule(module, stage, length)


METHOD = Method(apply, fits=fits, course=course)
