"""What the methods with a prompt in front share: the class of PEFT that puts it there, and where its first embeddings come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from finetune_api.constants import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Method, Setting
from finetune_trainer.methods.peft_models import TRAINED, quiet_peft, train_beside
from finetune_trainer.methods.targets import trained_whole
from finetune_trainer.modeling.base import seeded
from finetune_trainer.modeling.start import Head

TASKS: Final[Mapping[Head, str]] = {Head.CAUSAL: "CAUSAL_LM", Head.CLASSIFICATION: "SEQ_CLS"}


def prompt_method(configure: Callable[[Setting], PeftConfig], begin: Callable[[Setting, PeftModel], None] | None = None) -> Method:
    """A method that puts something in front of the rows. `begin` may say what its first values are."""

    def check(setting: Setting) -> PeftConfig:
        check_room(setting, configured := configure(setting))
        return configured

    def apply(setting: Setting) -> nn.Module:
        config = check(setting)
        config.modules_to_save = trained_whole(setting) or None
        with seeded(setting.seed), quiet_peft():
            module = get_peft_model(setting.plain.model, config, adapter_name=TRAINED)
            if begin is not None:
                begin(setting, module)
        train_beside(setting, config.modules_to_save or ())
        return module

    return Method(apply, check=check)


def check_room(setting: Setting, config: Any) -> None:
    """Raise TrainerError(InvalidSpec) where rows of maxLength and the prompt before them have more positions than the model."""
    room = getattr(setting.plain.model.config, "max_position_embeddings", None)
    wanted = setting.stage.training.max_length
    if room is not None and wanted is not None and wanted + config.num_virtual_tokens > room:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"rows of {wanted} tokens behind {config.num_virtual_tokens} trained positions are longer than the model's {room}: "
            f"lower training.maxLength to {room - config.num_virtual_tokens}, or numVirtualTokens",
            where=setting.field("numVirtualTokens"),
        )


def set_prompt(module: Any, values: torch.Tensor) -> None:
    """Begin with these embeddings, (positions, hidden)."""
    with torch.no_grad():
        module.prompt_encoder[TRAINED].embedding.weight.copy_(values)


def repeated(numbers: Sequence[int], count: int) -> list[int]:
    """As many numbers as are asked for, from the beginning again where there are too few."""
    return [numbers[index % len(numbers)] for index in range(count)]
