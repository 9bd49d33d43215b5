"""The guards by name. Adding one: its file here, its options in the schema, an example, a section of docs/guards.md, a table of tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from finetune_api.v1alpha1.regularization import Guard as Options
from finetune_api.v1alpha1.regularization import GuardType
from finetune_trainer.engine.guards import Guard
from finetune_trainer.guards.dann import Dann
from finetune_trainer.guards.ewc import Ewc
from finetune_trainer.guards.kl import Kl
from finetune_trainer.guards.l2sp import L2sp
from finetune_trainer.guards.loss_spike import LossSpike
from finetune_trainer.guards.mixout import Mixout
from finetune_trainer.guards.neftune import Neftune
from finetune_trainer.modeling.stage_model import StageModel


class Make(Protocol):
    def __call__(self, options: Options, model: StageModel, *, tokenizer: Any, seed: int, where: str) -> Guard:
        """Return the guard of a stage, not begun yet. where: its path in the manifest."""
        ...


GUARDS: Final[Mapping[GuardType, Make]] = {
    GuardType.L2SP: L2sp,
    GuardType.EWC: Ewc,
    GuardType.KL: Kl,
    GuardType.DANN: Dann,
    GuardType.MIXOUT: Mixout,
    GuardType.LOSS_SPIKE: LossSpike,
}


def guards_of(model: StageModel, *, tokenizer: Any, seed: int) -> list[Guard]:
    """The guards that a stage declares, in their order, and what its training options ask for in the same places of the loop."""
    where, stage = f"stage {model.stage.name}, regularization", model.stage
    alpha = stage.training.neftune_noise_alpha
    declared = [
        GUARDS[options.type](options, model, tokenizer=tokenizer, seed=seed, where=f"{where} {options.type}")
        for options in stage.regularization or []
    ]
    return [*declared, *([Neftune(alpha)] if alpha is not None else [])]
