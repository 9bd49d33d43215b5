"""What defines each method, shown on a tiny model; and what LoRA's kin do beside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finetune_api.v1alpha1.method import MethodType
from finetune_api.v1alpha1.objective import Objective
from finetune_api.v1alpha1.stage import HandOver
from finetune_api.v1alpha1.support import Family
from finetune_trainer.evaluation.generation import complete, evaluating
from finetune_trainer.handover import hand_over
from finetune_trainer.methods.registry import method_of
from finetune_trainer.modeling.start import Start
from finetune_trainer.tokenizer import load_tokenizer
from tests.unit.methods.table import PROPERTIES, UP, begins_at_the_base, built, layer, method, spec, update
from tests.unit.models.cases import build, train


@pytest.mark.parametrize("kind", MethodType)
def test_the_property_that_defines_a_method(kind: MethodType, llama: Path) -> None:
    PROPERTIES[kind](llama)


def test_an_orthogonal_start_halves_an_orthogonal_matrix(llama: Path) -> None:
    model = built(llama, method("lora", r=4, alpha=4, initialization="orthogonal"))
    a, b = (side["default"].weight.detach() for side in (layer(model).lora_A, layer(model).lora_B))
    assert (b @ a).abs().max() < 1e-6, "the halves are orthogonal to each other"
    assert a.any()
    assert b.any()
    begins_at_the_base(llama, model)


def test_olora_takes_a_part_of_the_base_out_and_gives_it_back(llama: Path) -> None:
    model = built(llama, method("lora", r=4, alpha=4, initialization="olora"))
    b = layer(model).lora_B["default"].weight.detach()
    assert torch.allclose(b.T @ b, torch.eye(4), atol=1e-5), "B has orthonormal columns"
    begins_at_the_base(llama, model)
    assert set(model.taken) >= {f"{UP}.A", f"{UP}.B"}


def test_olora_begins_at_a_base_that_keeps_its_weights_turned_round(family: Callable[[Family], Path]) -> None:
    folder = family(Family.GPT2)
    model = built(folder, method("lora", r=4, alpha=8, initialization="olora"))
    b = layer(model, "transformer.h.0.attn.c_attn").lora_B["default"].weight.detach()
    assert torch.allclose(b.T @ b, torch.eye(4), atol=1e-5)
    begins_at_the_base(folder, model)


def test_b_learns_faster_with_lora_plus(llama: Path) -> None:
    model = built(llama, method("lora", r=4, loraPlusRatio=16))
    rates = method_of(MethodType.LORA).rates(model.module, model.stage)
    assert {name for name, factor in rates.items() if factor == 16} == {name for name in model.trainable_names() if ".lora_B." in name}


def test_lora_plus_is_for_the_adapter_that_is_trained_and_not_for_those_under_it(llama: Path) -> None:
    stages = spec((method("lora", r=4), Objective.SUPERVISED, "stack"), (method("lora", r=4, loraPlusRatio=16), Objective.SUPERVISED, None))
    model = build(hand_over(build(Start.base(llama), stages, 0), HandOver.STACK), stages, 1)
    rates = method_of(MethodType.LORA).rates(model.module, model.stage)
    assert set(rates) == {name for name in model.trainable_names() if ".lora_B." in name}


@pytest.mark.parametrize("kind", ["promptTuning", "pTuning", "prefixTuning"])
def test_a_completion_behind_a_trained_prompt_depends_on_its_own_row_alone(kind: str, llama: Path) -> None:
    how = method(kind, numVirtualTokens=6)
    model, tokenizer = train(built(llama, how), scale=0.5), load_tokenizer(llama, spec((how, Objective.SUPERVISED, None)))
    draws = torch.Generator().manual_seed(1)
    prompts = [torch.randint(4, 900, (length,), generator=draws).tolist() for length in (3, 9, 20, 14, 5, 30)]
    with evaluating(model.module):
        together, *alone = (
            complete(model.module, tokenizer, some, max_new_tokens=8, device=torch.device("cpu"))
            for some in (prompts, *([prompt] for prompt in prompts))
        )
    assert [text for one in alone for text in one] == together


def test_modules_to_save_are_trained_and_published_whole(untied: Path) -> None:
    model = train(built(untied, method("lora", r=4, modulesToSave=["lm_head"])))
    assert update(untied, model, "lm_head").any()
    assert any("lm_head.modules_to_save" in name for name in model.trainable_names())
