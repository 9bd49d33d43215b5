"""Rows and random models of two layers, for tests of the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

VOCABULARY = 96
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
ENDS = {"bos_token_id": 1, "eos_token_id": 2}
BERT = {**SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
OPT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 64,
    "word_embed_proj_dim": 32,
}


class FakeRows:
    """Rows of random tokens; the last two thirds of each are supervised, the class is the row's number modulo three."""

    def __init__(self, lengths: list[int], *, seed: int = 0, supervised_from: float = 1 / 3) -> None:
        generator = np.random.default_rng(seed)
        self.lengths = np.array(lengths, np.int32)
        self._tokens = [generator.integers(5, VOCABULARY, length).astype(np.int32) for length in lengths]
        self._from = supervised_from

    def __len__(self) -> int:
        return len(self._tokens)

    def tokens(self, index: int) -> npt.NDArray[np.int32]:
        return self._tokens[index]

    def supervised(self, index: int) -> npt.NDArray[np.bool_]:
        return np.arange(self.lengths[index]) >= int(self.lengths[index] * self._from)

    def label(self, index: int) -> int:
        return index % 3

    def groups(self, index: int) -> list[int]:
        return [index % 2]

    def id(self, index: int) -> str:
        return f"{index:016x}"


def model(kind: str) -> nn.Module:
    """A model of this kind, its weights from a fixed seed; `lora` is a llama with an adapter whose B is not zero."""
    torch.manual_seed(0)
    made: Any
    match kind:
        case "llama" | "lora" | "lora on the head":
            made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
        case "gpt2":
            made = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2, **ENDS))
        case "qwen3":
            made = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, head_dim=8))
        case "gemma2":  # soft-caps its logits after the projection
            made = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0))
        case "granite":  # scales them
            made = transformers.GraniteForCausalLM(transformers.GraniteConfig(**SIZES, logits_scaling=4.0))
        case "opt":
            made = transformers.OPTForCausalLM(transformers.OPTConfig(**OPT, **ENDS, pad_token_id=0, dropout=0.0))
        case "bloom":
            made = transformers.BloomForCausalLM(
                transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, **ENDS)
            )
        case "bert":  # transforms hidden states before it
            made = transformers.BertForMaskedLM(transformers.BertConfig(**BERT))
        case "llama classifier":
            made = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**SIZES, num_labels=3))
        case "bert classifier":
            made = transformers.BertForSequenceClassification(transformers.BertConfig(**BERT, num_labels=3))
        case _:
            raise KeyError(kind)
    if kind.startswith("lora"):
        targets = ["q_proj", "lm_head"] if kind == "lora on the head" else "all-linear"
        made = get_peft_model(made, LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    return made


def gradients(trained: nn.Module) -> dict[str, torch.Tensor]:
    """The gradients that are there, taken away."""
    found = {name: parameter.grad.clone() for name, parameter in trained.named_parameters() if parameter.grad is not None}
    trained.zero_grad()
    return found
