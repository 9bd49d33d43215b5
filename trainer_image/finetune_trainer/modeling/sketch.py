"""A model of which only names and shapes are there, and what can be told by them: refusals before a weight is loaded or a GPU is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers.pytorch_utils import Conv1D

from finetune_api.constants import Reason
from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.support import Because, Family
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Length, Setting
from finetune_trainer.methods.registry import method_of
from finetune_trainer.modeling.base import CLASSES, Plain, configured, load_config
from finetune_trainer.modeling.start import HEADS, Head, Start

_LABELS: Final = ("one", "other")
_NAMES: Final = {"qwen2": Family.QWEN} | {family.value: family for family in Family}


def sketch(model: Path, head: Head, *, where: str) -> Plain:
    """The plain model on the meta device. Raises TrainerError(ModelUnsupported)."""
    config = configured(load_config(model), head, labels=_LABELS, where=where)
    try:
        with torch.device("meta"):
            made = CLASSES[head].from_config(config, trust_remote_code=False)
    except (ValueError, KeyError) as error:
        raise TrainerError(Reason.MODEL_UNSUPPORTED, f"there is no {config.model_type} with a {head} head: {error}", where=where) from error
    made.tie_weights()
    return Plain(made, head, frozenset())


def family_of(plain: Plain) -> Family:
    """The architecture among those of the support table that is nearest."""
    known = _NAMES.get(plain.model.config.model_type)
    if known is not None:
        return known
    if type(plain.model.config) in CLASSES[Head.MASKED]._model_mapping:
        return Family.BERT
    return Family.GPT2 if any(isinstance(module, Conv1D) for module in plain.model.modules()) else Family.LLAMA


def machine_problems(stages: Sequence[Stage], device: torch.device | None) -> Iterator[TrainerError]:
    """Yield what this image, or the device that will train, cannot do of the stages' methods. device: None where that isn't known yet."""
    for index, stage in enumerate(stages):
        try:
            method_of(stage.method.type).machine(f"spec.stages[{index}]", stage, device)
        except TrainerError as error:
            error.stage = error.stage or stage.name
            yield error


def method_problems(
    model: Path, stages: Sequence[Stage], tokenizer: Any, lengths: Mapping[str, tuple[int, int]] | None = None
) -> Iterator[TrainerError]:
    """Yield what is wrong with the stages' methods on this model, all stages together.

    lengths: by stage, its optimizer steps and those of an epoch; a stage whose data has a problem has none.
    """
    sketches: dict[Head, Plain] = {}
    for index, stage in enumerate(stages):
        if not stage.method.asks_the_model:
            continue
        head, where = HEADS[stage.objective], f"spec.stages[{index}]"
        try:
            plain = sketches[head] if head in sketches else sketches.setdefault(head, sketch(model, head, where=where))
            refusal = stage.method.row.refusal(stage.objective, family_of(plain))
            if refusal is not None:
                raise TrainerError(
                    Reason.INVALID_SPEC,
                    f"{stage.method.type} cannot do this with a {plain.model.config.model_type} model"
                    f"{' (tried)' if refusal.because is Because.IMPOSSIBLE else ''}: {refusal.why}; choose another method for it, docs/methods.md "
                    "has a table",
                    where=f"{where}.method.type",
                )
            method, setting = method_of(stage.method.type), Setting(plain, stage, where, Start.base(model), tokenizer=tokenizer)
            method.check(setting)
            if lengths and stage.name in lengths:
                method.fits(setting, Length(*lengths[stage.name]))
        except TrainerError as error:
            error.stage = error.stage or stage.name
            yield error
