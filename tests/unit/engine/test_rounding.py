"""Weights in bf16: what is rounded arrives on average, steps below half a digit are not lost, and the chances come from the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune_trainer.engine.rounding import RoundedAdamW, rounded
from tests.unit.engine import stage_run

BF16 = torch.bfloat16
CHANCES = torch.arange(1 << 16, dtype=torch.int32)
ADAMW = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}


@pytest.mark.parametrize("value", [1.001, -1.001, 0.1, 3.0e-39, -7.25e20, 1.99999, 1.0, 0.0])
def test_the_mean_over_all_chances_is_the_value_itself(value: float) -> None:
    wanted = torch.tensor(value, dtype=torch.float32)
    found = rounded(wanted.repeat(1 << 16), CHANCES)
    assert found.double().mean().item() == wanted.double().item(), "to the last bit"
    assert len(found.unique()) <= 2, "the neighbours, and nothing else"


def test_what_is_no_number_stays_so() -> None:
    every = torch.tensor([float("inf"), float("-inf"), float("nan")]).repeat(1 << 16, 1)
    patterns = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32)  # a GPU's NaN, which an addition would turn into zero
    assert rounded(every, CHANCES[:, None]).unique(dim=0).isinf().tolist()[0][:2] == [True, True]
    assert rounded(every, CHANCES[:, None])[:, 2].isnan().all()
    assert rounded(patterns, CHANCES[-2:]).isnan().all()


def stepped(optimizer: type[torch.optim.Optimizer], dtype: torch.dtype, steps: int = 100, **options: Any) -> torch.Tensor:
    """2048 weights of 1 whose gradient is always the same: AdamW takes 1e-4 from each, a fortieth of bf16's distance there."""
    weight = nn.Parameter(torch.ones(2048, dtype=dtype))
    made = optimizer([weight], **ADAMW, **options)  # type: ignore[call-arg] # a class of optimizers with AdamW's options
    for _ in range(steps):
        weight.grad = torch.full_like(weight, 0.5)
        made.step()
    return weight.detach().float()


def test_steps_below_half_a_digit_arrive_where_the_nearest_number_loses_them() -> None:
    exact, nearest = stepped(torch.optim.AdamW, torch.float32), stepped(torch.optim.AdamW, BF16)
    assert exact.mean().item() == pytest.approx(0.99, abs=1e-4)
    assert torch.equal(nearest, torch.ones(2048)), "plain bf16 has not moved at all"
    assert stepped(RoundedAdamW, BF16).mean().item() == pytest.approx(0.99, abs=1e-3)


def test_the_averages_are_not_stuck_either() -> None:
    """A gradient falls to a tenth: what is averaged over a thousand steps follows, as in fp32; to the nearest it would stand still."""
    kept: dict[str, float] = {}
    for name, made, dtype in (
        ("exact", torch.optim.AdamW, torch.float32),
        ("nearest", torch.optim.AdamW, BF16),
        ("rounded", RoundedAdamW, BF16),
    ):
        weight = nn.Parameter(torch.ones(2048, dtype=dtype))
        optimizer = made([weight], **ADAMW)
        for step in range(200):
            weight.grad = torch.full_like(weight, 1.0 if step < 50 else 0.1)
            optimizer.step()
        kept[name] = optimizer.state[weight]["exp_avg_sq"].float().mean().item()
    assert kept["rounded"] == pytest.approx(kept["exact"], rel=0.01)
    assert abs(kept["nearest"] - kept["exact"]) > 0.05 * kept["exact"]


def test_the_chances_come_from_the_seed() -> None:
    first, again, other = (stepped(RoundedAdamW, BF16, steps=20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_stage_keeps_half_the_bytes_and_learns_as_much(tmp_path: Path) -> None:
    last: dict[str, float] = {}
    for weights, kept, optimizer, bytes_each in (
        ("fp32", "float32", "adamw_torch_fused", (4, 4, 8)),
        ("bf16", "bfloat16", "adamw in bf16, rounded stochastically", (2, 2, 4)),
    ):
        stage = stage_run.stage({"maxSteps": 20}, method={"type": "full", "full": {"weights": weights}})
        trained = stage_run.train(tmp_path / weights, stage)
        resolved = trained.outcome.resolved
        own = [resolved["trainingBytes"][kind] / resolved["trainableParameters"] for kind in ("weights", "gradients", "optimizer")]
        assert own == pytest.approx(bytes_each, abs=0.01)  # torch's own AdamW counts the steps in a tensor too
        assert (resolved["mixedPrecision"]["trainableWeights"], resolved["optimizer"]) == (kept, optimizer)
        last[weights] = trained.curve[-1]["loss"]
    assert last["bf16"] == pytest.approx(last["fp32"], rel=2e-3)
