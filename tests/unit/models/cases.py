"""Manifests and models for the tests of what is built, handed over and published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_trainer.engine.precision import Precision
from finetune_trainer.modeling.stage_model import StageModel, build_stage_model
from finetune_trainer.modeling.start import Start
from finetune_trainer.tokenizer import load_tokenizer

FP32 = Precision(torch.float32, torch.float32, None)
LABELS = ["animal", "plant", "stone"]
CAUSAL, MASKED, CLASSES = "causalLanguageModeling", "maskedLanguageModeling", "classification"


def lora(**options: Any) -> dict[str, Any]:
    return {"type": "lora", "lora": {"r": 4, "alpha": 8, **options}}


METHODS: dict[str, dict[str, Any]] = {
    "full": {"type": "full"},
    "headOnly": {"type": "headOnly"},
    "partial": {"type": "partial", "partial": {"frozen": ["*embed*"]}},
    "lora": lora(dropout=0.1),
    "rsLora": lora(rsLora=True),
    "dora": lora(dora=True),
    "pissa": lora(initialization="pissa"),
    "gaussian": lora(initialization="gaussian", targetModules=["q_proj", "up_proj"]),
    "pissaDora": lora(initialization="pissa", dora=True),
}


def job(*stages: tuple[str | dict[str, Any], str, str | None], added: Sequence[str] = (), **training: Any) -> FineTuneJobSpec:
    """A spec of (method, objective, hand-over) stages."""
    return FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "file://base"},
            "tokenizer": {"addTokens": list(added)},
            "stages": [
                {
                    "name": f"stage{index}",
                    "objective": objective,
                    "data": {"train": [{"uri": "file://rows.jsonl"}]},
                    "method": METHODS[method] if isinstance(method, str) else method,
                    "training": training,
                    **({"handOver": hand_over} if hand_over else {}),
                }
                for index, (method, objective, hand_over) in enumerate(stages)
            ],
        }
    )


def build(start: Start, spec: FineTuneJobSpec, index: int, *, labels: Sequence[str] | None = LABELS, seed: int = 1) -> StageModel:
    return build_stage_model(
        start=start,
        stage=spec.stages[index],
        spec=spec,
        labels=labels if spec.stages[index].objective == CLASSES else None,
        tokenizer=load_tokenizer(start.model, spec),
        precision=FP32,
        seed=seed,
    )


def train(model: StageModel, seed: int = 1, scale: float = 0.02) -> StageModel:
    """As a few large steps would: every trained weight moves. Nothing else may depend on how it was trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.requires_grad:
                parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model


def outputs(module: Any, ids: torch.Tensor | None = None) -> Any:
    """Logits and hidden states of two rows, without dropout."""
    module.eval()
    with torch.no_grad():
        return module(input_ids=torch.arange(4, 36).reshape(2, 16) if ids is None else ids, output_hidden_states=True)


def logits(model: StageModel) -> torch.Tensor:
    return outputs(model.module).logits


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / one.abs().max())
