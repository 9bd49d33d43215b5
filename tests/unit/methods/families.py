"""Tiny models of the five architectures of the support table."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig, Qwen3Config

from finetune_api.v1alpha1.support import Family
from finetune_trainer.modeling.base import seeded
from tests.tiny import make_tiny_bert, make_tiny_llama

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
