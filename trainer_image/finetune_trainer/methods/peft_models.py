"""Putting an adapter of PEFT on a plain model, whatever its kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from peft import PeftConfig, PeftModel
from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.common import Targeted
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Method, Setting
from finetune_trainer.methods.targets import targets, trained_whole
from finetune_trainer.methods.tokens import train_rows
from finetune_trainer.modeling.base import first_line, seeded

TRAINED: Final = "default"
"""What the adapter that is trained is always called."""
PEFT_PREFIX: Final = "base_model.model."


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without PEFT's warnings about what nobody can do anything about: an attribute's old name, kernels that need a compiler (BOFT has a way
    without), norms that it does not know by name but treats right, a conversion of its own that is not used here, and
    positions that generating hands to trained prompts, whose rows are never padded then."""
    with warnings.catch_warnings():
        for words in (
            "`is_gradient_checkpointing`",
            "Failed to load the CUDA",
            "Setting boft_n_butterfly_factor",
            "Unsupported layer type",
            "Using Rank-Stabilized LoRA with rank_pattern",
            "Position ids are not supported",
        ):
            warnings.filterwarnings("ignore", words)
        yield


def adapted(setting: Setting, config: Any, *, whole: Sequence[str]) -> PeftModel:
    """The model with one adapter on it, made from the seed."""
    with seeded(setting.seed), quiet_peft():
        try:
            module = PeftModel(setting.plain.model, config, adapter_name=TRAINED)
        except (ValueError, TypeError) as error:
            raise TrainerError(
                Reason.INVALID_SPEC, f"PEFT refuses it for this model: {first_line(error)}", where=setting.field()
            ) from error
    train_beside(setting, whole)
    return module


def train_beside(setting: Setting, whole: Sequence[str]) -> None:
    """Train what must be trained beside an adapter: weights that had to be made, and rows of added tokens."""
    model: nn.Module = setting.plain.model
    for name, parameter in model.named_parameters():
        if name in setting.plain.new and name.rsplit(".", 1)[0] not in whole:
            parameter.requires_grad_(True)
    if setting.added:
        train_rows(model, setting.added)


def peft_method(configure: Callable[[Setting], PeftConfig], **more: Any) -> Method:
    """A method that is one adapter of PEFT: `configure` makes its configuration, and raises TrainerError(InvalidSpec) where it fits no module."""

    def apply(setting: Setting) -> nn.Module:
        config = configure(setting)
        return adapted(setting, config, whole=config.modules_to_save or ())

    return Method(apply, check=configure, **more)


def placed(setting: Setting, options: Targeted) -> dict[str, Any]:
    """Where an adapter goes, in PEFT's words: its modules, and what is trained whole beside it."""
    whole = trained_whole(setting)
    return {"target_modules": targets(setting, options, avoid=whole), "modules_to_save": whole or None}
