"""A plain model as a folder that `from_pretrained` reads: safetensors in fp32, configuration, tokenizer, chat template, generation settings."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from transformers import GenerationConfig

from finetune_api.constants import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.export.place import written
from finetune_trainer.modeling.base import DROPOUTS, load_config
from finetune_trainer.modeling.plain import inner_model
from finetune_trainer.modeling.stage_model import StageModel

GENERATION: Final = "generation_config.json"


def write_model(folder: Path, model: StageModel, weights: Mapping[str, torch.Tensor], tokenizer: Any) -> None:
    """Write the stage's architecture with these weights (plain names; a tied weight once). Raises TrainerError where the storage refuses."""
    inner = inner_model(model.module)
    with torch.device("meta"):
        plain = type(inner)(published_config(model))
    buffers = {name: buffer for name, buffer in inner.named_buffers() if name in plain.state_dict()}
    plain.load_state_dict({**buffers, **weights}, strict=False, assign=True)
    plain.tie_weights()
    lost = sorted(name for name, tensor in plain.state_dict().items() if tensor.is_meta)
    if lost:
        raise TrainerError(Reason.INTERNAL_ERROR, f"the published model would lack {', '.join(lost[:3])}", where=str(folder))
    if plain.can_generate():
        plain.generation_config = GenerationConfig.from_model_config(plain.config)
    written(folder, lambda: plain.save_pretrained(folder))
    own = model.start.model / GENERATION
    if plain.can_generate() and own.is_file():
        # As it stands: transformers reads settings that it refuses to write.
        written(folder, lambda: shutil.copyfile(own, folder / GENERATION))
    if tokenizer is not None:
        written(folder, lambda: tokenizer.save_pretrained(folder))


def published_config(model: StageModel) -> Any:
    """The trained model's configuration, without what was only for training."""
    inner = inner_model(model.module)
    config, original = copy.deepcopy(inner.config), load_config(model.start.model)
    for name in ("use_cache", *DROPOUTS):
        if hasattr(original, name):
            setattr(config, name, getattr(original, name))
    config.dtype = torch.float32
    config.name_or_path = ""
    return config
