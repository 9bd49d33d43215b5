"""A GGUF file is a base model like any other: read dequantised, trained, and published as safetensors with its own base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGUFWriter
from safetensors.numpy import load_file

from finetune_trainer.export.adapter import base_weights, needs_base
from finetune_trainer.export.plain_model import write_model
from finetune_trainer.export.verify import load_merged
from finetune_trainer.modeling.base import load_plain
from finetune_trainer.modeling.stage_model import build_stage_model
from finetune_trainer.modeling.start import Head, Start
from finetune_trainer.tokenizer import load_tokenizer
from tests.tiny import HEADS, HIDDEN, INNER, KV_HEADS, LAYERS, VOCABULARY
from tests.unit.models.cases import CAUSAL, FP32, apart, job, logits, outputs, train

BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""llama.cpp's names of what stands in a layer."""


@pytest.fixture(scope="module")
def tiny_gguf(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-llama as a GGUF file, unquantised."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCABULARY)
    for name, tensor in load_file(tiny_llama / "model.safetensors").items():
        writer.add_tensor(*ggml(name, tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def ggml(name: str, tensor: npt.NDArray[np.float32]) -> tuple[str, npt.NDArray[np.float32]]:
    """llama.cpp's name and order of a weight: it interleaves the halves that the rotary embedding turns."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight", tensor
    if name == "model.norm.weight":
        return "output_norm.weight", tensor
    _, _, index, rest = name.split(".", 3)
    part = rest.removesuffix(".weight")
    heads = {"self_attn.q_proj": HEADS, "self_attn.k_proj": KV_HEADS}.get(part)
    if heads is not None:
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, tensor.shape[1])
        tensor = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(tensor.shape))
    return f"blk.{index}.{BLOCK[part]}.weight", tensor


def test_it_is_the_same_model(tiny_llama: Path, tiny_gguf: Path) -> None:
    plain = load_plain(Start.base(tiny_gguf), Head.CAUSAL)
    wanted = load_plain(Start.base(tiny_llama), Head.CAUSAL)
    assert not plain.new
    assert apart(outputs(wanted.model).logits, outputs(plain.model).logits) < 1e-6


@pytest.mark.parametrize("method", ["lora", "pissa"])
def test_an_adapter_on_it_needs_its_base_published(tiny_llama: Path, tiny_gguf: Path, tmp_path: Path, method: str) -> None:
    spec = job((method, CAUSAL, None))
    tokenizer = load_tokenizer(tiny_llama, spec)
    start = Start.base(tiny_gguf)
    options = {"start": start, "stage": spec.stages[0], "spec": spec, "labels": None, "tokenizer": tokenizer, "precision": FP32}
    model = build_stage_model(**options, seed=1)
    began = logits(model)
    train(model)
    assert needs_base(model)
    write_model(tmp_path / "base", model, base_weights(model), tokenizer)
    base = load_merged(tmp_path / "base", Head.CAUSAL)
    assert apart(began, outputs(base).logits) < 1e-5
    assert not hasattr(base.config, "quantization_config")
