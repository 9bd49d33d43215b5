"""Families that differ where it matters: weights the other way round, scaled embeddings, experts, heads of several layers, untied and tied."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from finetune_api.v1alpha1.stage import HandOver
from finetune_trainer import handover
from finetune_trainer.export import adapter, verify
from finetune_trainer.export.plain_model import write_model
from finetune_trainer.modeling.plain import plain_weights
from finetune_trainer.modeling.start import Start
from tests.unit.models.cases import CAUSAL, CLASSES, MASKED, apart, build, job, logits, outputs, train

SIZE = {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
IDS = {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}
DECODER = {**SIZE, **IDS, "num_key_value_heads": 2, "max_position_embeddings": 256}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 1024, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, **IDS},
    "qwen3": {**DECODER, "head_dim": 16},
    "gemma3_text": {**DECODER, "head_dim": 16},
    "mixtral": {**DECODER, "num_local_experts": 4},
    "roberta": {**SIZE, "max_position_embeddings": 258, "pad_token_id": 1},
    "modernbert": {**SIZE, **IDS, "max_position_embeddings": 256, "cls_token_id": 1, "sep_token_id": 2},
}
ENCODERS = ("roberta", "modernbert")
FP32 = 1e-5


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, tiny_bert: Path) -> Path:
    """A random model of the family, large enough weights to tell logits apart."""
    encoder = request.param in ENCODERS
    folder = tmp_path_factory.mktemp("families") / request.param
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        auto = AutoModelForMaskedLM if encoder else AutoModelForCausalLM
        model = auto.from_config(AutoConfig.for_model(request.param, **FAMILIES[request.param]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile((tiny_bert if encoder else tiny_llama) / name, folder / name)
    return folder


@pytest.mark.parametrize("methods", [("lora", "lora"), ("dora", "dora"), ("lora", "pissa")])
@pytest.mark.parametrize("kind", ["stack", "merge"])
def test_hand_over_and_publication(family: Path, methods: tuple[str, str], kind: str, tmp_path: Path) -> None:
    language = MASKED if family.name in ENCODERS else CAUSAL
    second = CLASSES if kind == "merge" else language
    spec = job((methods[0], language, kind), (methods[1], second, None), added=["<ticket>"] if kind == "merge" else [])
    ended = train(build(Start.base(family), spec, 0))
    one = outputs(ended.module)
    model = build(handover.hand_over(ended, HandOver(kind)), spec, 1)
    assert apart(one.hidden_states[-1], outputs(model.module).hidden_states[-1]) < FP32
    wanted = logits(train(model))
    write_model(tmp_path / "merged", model, plain_weights(model.module), None)
    assert apart(wanted, outputs(verify.load_merged(tmp_path / "merged", model.head)).logits) < FP32
    if not adapter.is_one_adapter(adapter.stacked(model)):
        return
    base = family
    if adapter.needs_base(model):
        base = tmp_path / "base"
        write_model(base, model, adapter.base_weights(model), None)
    reference = adapter.base_reference(model, spec, revision=None, target=tmp_path)
    (tmp_path / "adapter").mkdir()
    adapter.write_adapter(tmp_path / "adapter", model, reference, None)
    assert apart(wanted, outputs(verify.load_adapter(tmp_path / "adapter", base, model)).logits) < FP32
