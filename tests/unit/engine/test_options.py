"""Options that no loss would show: each reaches the optimizer, the collator or the validation that it speaks of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tests.unit.engine.stage_run import stage, train

MASK = 4
"""The mask token of stage_run.tokenizer()."""


def used(folder: Path, training: dict[str, Any]) -> dict[str, float]:
    """What a step and a validation of masked language modelling used, by the option that it comes from."""
    found: dict[str, float] = {}
    masked: list[torch.Tensor] = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        group = optimizer.param_groups[0]
        found.update(adamBeta1=group["betas"][0], adamBeta2=group["betas"][1], adamEpsilon=group["eps"])

    def watch(net: nn.Module) -> None:
        net.register_forward_pre_hook(seen, with_kwargs=True)

    def seen(net: nn.Module, _: Any, inputs: dict[str, Any]) -> None:
        rows = len(inputs["input_ids"])
        if net.training:
            masked.append((inputs["input_ids"] == MASK)[inputs["input_ids"] != 0])
        name = "perDeviceTrainBatchSize" if net.training else "perDeviceEvalBatchSize"
        found[name] = max(rows, found.get(name, 0))

    handle = register_optimizer_step_pre_hook(look)
    try:
        planned = stage({"maxSteps": 2, "perDeviceTrainBatchSize": 4} | training, objective="maskedLanguageModeling")
        train(folder, planned, kind="bert", validated=True, prepare=watch)
    finally:
        handle.remove()
    # Two thirds of FakeRows' tokens may be chosen, and of the chosen 80 % become the mask.
    return found | {"mlmProbability": float(torch.cat(masked).float().mean()) / 0.8 * 3 / 2}


@pytest.mark.parametrize(
    ("option", "value", "default"),
    [
        ("adamBeta1", 0.5, 0.9),
        ("adamBeta2", 0.7, 0.999),
        ("adamEpsilon", 1e-3, 1e-8),
        ("perDeviceTrainBatchSize", 2, 4),
        ("perDeviceEvalBatchSize", 3, 4),
        ("mlmProbability", 0.6, 0.15),
    ],
)
def test_an_option_is_used(option: str, value: float, default: float, tmp_path: Path) -> None:
    share = 0.12 if option == "mlmProbability" else 0  # of some hundred tokens
    assert used(tmp_path / "given", {option: value})[option] == pytest.approx(value, abs=share)
    assert used(tmp_path / "default", {})[option] == pytest.approx(default, abs=share)
