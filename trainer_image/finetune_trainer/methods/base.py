"""What a method is: one of these, called METHOD, in a file of this package that has the method's name.

Everything that is trained, saved, handed over and published follows from the module that `apply` returns: what requires gradients, and the
layers of PEFT in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from torch import nn

from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.modeling.base import Plain
from finetune_trainer.modeling.start import Start

SHOWN: Final = 4
"""Modules that a course names in the report at either end."""


class Examples(Protocol):
    """The training rows of the stage, for a method that begins from them."""

    @property
    def device(self) -> torch.device:
        """Where the stage's model will be trained, and may be asked."""
        ...

    def drawn(self, count: int, *, replayed: bool, where: str) -> list[torch.Tensor]:
        """Token ids of so many rows, drawn by the stage's seed: the stage's own, or those of its replay sources. Raises TrainerError (DataEmpty)."""
        ...


@dataclass(frozen=True)
class Setting:
    """What a method is put on, and for which stage."""

    plain: Plain
    """On the meta device where only names and shapes are asked about."""
    stage: Stage
    where: str
    """Of the stage: `spec.stages[0]`."""
    start: Start
    added: Sequence[int] = ()
    """Ids of added tokens, whose rows are trained whatever the method freezes."""
    tokenizer: Any = None
    seed: int = 0
    examples: Examples | None = None
    """None where there are only names and shapes."""
    remembered: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """What the method's course remembered in the checkpoint that the stage goes on from."""

    def field(self, name: str = "") -> str:
        """Where an option of this method stands: `spec.stages[0].method.lora.r`."""
        block = f"{self.where}.method.{self.stage.method.type}"
        return f"{block}.{name}" if name else block


@dataclass(frozen=True)
class Length:
    """How long a stage is, in optimizer steps."""

    steps: int
    steps_per_epoch: int


class Course:
    """What a method does while it trains, beside following the gradient. A subclass overrides what it needs.

    `state` is all that it remembers: it goes into every checkpoint, and comes back by `load` before the first step after a resume.
    """

    def begin(self, step: int) -> None:
        """Training starts, or goes on, with `step` steps done."""

    def loss(self) -> torch.Tensor | None:
        """What is added to the loss of a step, once; the curve does not show it."""
        return None

    def before_update(self, step: int) -> None:
        """The gradients of step `step` (from 1) stand."""

    def after_update(self, step: int) -> None:
        """The weights have changed; the gradients still stand."""

    def tensors(self) -> Mapping[str, torch.Tensor]:
        return {}

    def document(self) -> dict[str, Any]:
        """What it remembers that is no tensor, as JSON."""
        return {}

    def summary(self) -> dict[str, Any]:
        """What became of the stage by it, for resolved.json."""
        return {}

    def told(self) -> dict[str, str]:
        """The same for people: a few lines of the report, by what they are about."""
        return {}

    def load(self, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> None:
        """Take back what `tensors` and `document` gave."""

    def end(self) -> None:
        """The stage has ended: everything that was trained requires gradients again."""


class Apply(Protocol):
    def __call__(self, setting: Setting) -> nn.Module:
        """Return the module to train. Raises TrainerError(InvalidSpec) where nothing of what the stage asks for is in the model."""
        ...


def nothing_to_check(setting: Setting) -> None:
    """Every model will do."""


def any_length(setting: Setting, length: Length) -> None:
    """A stage may be as short as it likes."""


def any_machine(where: str, stage: Stage, device: torch.device | None) -> None:
    """Every machine and image will do."""


@dataclass(frozen=True)
class OwnForm:
    """How an adapter is published that PEFT does not know."""

    config: Callable[[nn.Module, Stage], dict[str, Any]]
    """Its adapter_config.json, but for what is said about the base."""
    tensors: Callable[[nn.Module], Mapping[str, torch.Tensor]]
    """By the names of the modules in the plain model; what is trained whole beside it comes to them."""
    loader: Path
    """A program with `load(model, folder)` that needs nothing of this project; it is published too."""


@dataclass(frozen=True)
class Method:
    """One method. Raises happen before anything is trained; `check` needs names and shapes alone, so that `prepare` can ask it."""

    apply: Apply
    check: Callable[[Setting], object] = nothing_to_check
    fits: Callable[[Setting, Length], object] = any_length
    """Raises where its schedule would never train, or end after the stage: asked by `prepare`, once the data says how long that is."""
    machine: Callable[[str, Stage, torch.device | None], object] = any_machine
    """Refuses, by `spec.stages[0]` and the stage, what this image or the device that will train cannot do. None: it isn't known yet which will."""
    rates: Callable[[nn.Module, Stage], Mapping[str, float]] = field(default=lambda module, stage: {})
    """Factors of the learning rate for parameters that have one, by their names in the module."""
    decays: Callable[[nn.Module, Stage], Mapping[str, float]] = field(default=lambda module, stage: {})
    """Weight decays of parameters that have one of their own, by their names in the module."""
    course: Callable[[nn.Module, Stage, Length], Course] | None = None
    form: OwnForm | None = None
