"""Tiny models of the five architectures of the support table, and each method at a size that fits them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig, Qwen3Config

from finetune_api.v1alpha1.fine_tune_job import RULES_APART, FineTuneJobSpec
from finetune_api.v1alpha1.method import MethodType
from finetune_api.v1alpha1.objective import Objective
from finetune_api.v1alpha1.support import Family
from finetune_trainer.modeling.base import seeded
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Start
from tests.tiny import make_tiny_bert, make_tiny_llama
from tests.unit.models.cases import build

_SHAPE: Final = {"vocab_size": 1024, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
_GROUPED: Final = _SHAPE | {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_CONFIGS: Final = {
    Family.GPT2: lambda: GPT2Config(**_SHAPE, n_embd=64, n_layer=2, n_head=4, n_positions=128),
    Family.MISTRAL: lambda: MistralConfig(**_GROUPED, sliding_window=None, tie_word_embeddings=False),
    Family.QWEN: lambda: Qwen3Config(**_GROUPED, head_dim=16, tie_word_embeddings=True),
}
SMALL: Final[dict[MethodType, dict[str, Any]]] = {
    MethodType.GRADUAL: {"everySteps": 2},
    MethodType.PARTIAL: {"frozen": ["*.0.*"]},
    MethodType.LORA: {"r": 4},
    MethodType.ADALORA: {"initR": 6, "targetR": 3, "interval": 2},
    MethodType.LOHA: {"r": 4},
    MethodType.LOKR: {"r": 4},
    MethodType.VERA: {"r": 16},
    MethodType.OFT: {"blockSize": 8},
    MethodType.HRA: {"r": 4},
    MethodType.FOURIERFT: {"nFrequency": 50},
    MethodType.GRALORA: {"r": 8, "k": 2},
    MethodType.AFLORA: {"r": 4},
    MethodType.ADAPTER: {"place": "houlsby", "size": 8},
    MethodType.PROMPT_TUNING: {"numVirtualTokens": 6, "initialization": "text", "text": "a small beetle"},
    MethodType.PREFIX_TUNING: {"numVirtualTokens": 6},
    MethodType.P_TUNING: {"numVirtualTokens": 6},
    MethodType.TRAINABLE_TOKENS: {"tokens": ["a", "e"]},
}
"""What the tests write where nothing else is said; the other methods are as they are by default."""
ALL: Final = os.environ.get("FINETUNE_CATALOGUE") == "all"
"""Whether each cell is tried, or as many as meet each pair of a method with a family and with an objective."""


def make_family(folder: Path, family: Family) -> Path:
    """Write a model of two layers × 64 with the tokenizer of the tiny LLaMA (BERT: its own)."""
    if family is Family.BERT:
        return make_tiny_bert(folder)
    if family is Family.LLAMA:
        return make_tiny_llama(folder)
    with seeded(7):
        AutoModelForCausalLM.from_config(_CONFIGS[family]()).save_pretrained(folder)
    llama = make_tiny_llama(folder.parent / f"{folder.name}-tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(llama / name, folder / name)
    return folder


def method(kind: MethodType | str, **options: Any) -> dict[str, Any]:
    """A manifest's method, with its small options or with these."""
    kind = MethodType(kind)
    chosen = options or SMALL.get(kind, {})
    return {"type": str(kind), **({str(kind): chosen} if chosen else {})}


def spec(*stages: tuple[dict[str, Any], Objective, str | None], **training: Any) -> FineTuneJobSpec:
    """A spec of (method, objective, hand-over) stages; the rules of the manifest are not asked, since refused cells are tried too."""
    document = {
        "model": {"uri": "file://base"},
        "stages": [
            {
                "name": f"stage{index}",
                "objective": str(objective),
                "data": {"train": [{"uri": "file://rows.jsonl"}]},
                "method": method,
                "training": {"maxSteps": 20, **training},
                **({"handOver": hand_over} if hand_over else {}),
            }
            for index, (method, objective, hand_over) in enumerate(stages)
        ],
    }
    return FineTuneJobSpec.model_validate(document, context=RULES_APART)


def built(folder: Path, method: dict[str, Any], objective: Objective = Objective.SUPERVISED) -> StageModel:
    """The model of one stage."""
    return build(Start.base(folder), spec((method, objective, None)), 0)


def weight(model: StageModel, name: str) -> torch.Tensor:
    """A parameter of the module."""
    return dict(model.module.named_parameters())[name].detach()
