"""A trained sequence classifier as it lies in its folder: no new head, no other labels, fp32."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForSequenceClassification

from finetune_api.constants import Reason
from finetune_trainer.data.classifiers import HINT
from finetune_trainer.errors import TrainerError
from finetune_trainer.modeling.base import Plain, first_line, load_config, seeded
from finetune_trainer.modeling.start import Head


def check_head(folder: Path, *, where: str) -> None:
    """Look for the head in the files' headers, on the meta device. Raises TrainerError (ModelUnsupported) where it isn't there."""
    config = load_config(folder, where=where)
    try:
        with torch.device("meta"):
            plain = Plain(AutoModelForSequenceClassification.from_config(config, trust_remote_code=False), Head.CLASSIFICATION, frozenset())
    except (ValueError, KeyError) as error:
        message = f"transformers has no {config.model_type} that classifies: {first_line(error)}"
        raise TrainerError(Reason.MODEL_UNSUPPORTED, message, where=where, hint=HINT) from error
    _complete(folder, {*plain.head_names} - {*_names(folder)}, where)


def load_classifier(folder: Path, *, where: str) -> Any:
    """The classifier in evaluation mode, fp32, on the CPU. Raises TrainerError(ModelUnsupported) where its files lack a weight."""
    try:
        with seeded(0):  # what is missing is drawn before it is refused
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as error:
        message = f"transformers can't load the classifier in {folder}: {first_line(error)}"
        raise TrainerError(Reason.MODEL_UNSUPPORTED, message, where=where, hint=HINT) from error
    _complete(folder, {*info["missing_keys"]} & {name for name, _ in model.named_parameters()}, where)
    return model.eval().requires_grad_(False)


def _names(folder: Path) -> Iterable[str]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            yield from tensors.keys()


def _complete(folder: Path, missing: set[str], where: str) -> None:
    if missing:
        message = f"the weights in {folder} lack {', '.join(sorted(missing)[:3])}: what judges answers must be trained"
        raise TrainerError(Reason.MODEL_UNSUPPORTED, message, where=where, hint=HINT)
