"""The methods by name. Each marks the trained parameters of a plain model by `requires_grad`, and freezes the rest.

A method is `apply(plain, stage, start=…, added=…, where=…) -> Module`. What is trained, saved and handed over follows from the module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from torch import nn

from finetune_api.v1alpha1.method import MethodType
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.methods import full, head_only, lora, partial
from finetune_trainer.modeling.base import Plain
from finetune_trainer.modeling.start import Start


class Apply(Protocol):
    def __call__(self, plain: Plain, stage: Stage, *, start: Start, added: Sequence[int], seed: int, where: str) -> nn.Module:
        """Return the module to train. Raises TrainerError(InvalidSpec) where nothing of what the stage asks for is in the model."""
        ...


METHODS: Final[dict[MethodType, Apply]] = {
    MethodType.FULL: full.apply,
    MethodType.LORA: lora.apply,
    MethodType.HEAD_ONLY: head_only.apply,
    MethodType.PARTIAL: partial.apply,
}
