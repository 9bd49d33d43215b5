"""What the tables of guards share: stages with guards, and what a weight has moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune_api.v1alpha1.stage import Stage
from finetune_api.wire import Activity
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.errors import Stopped
from tests.unit.engine.stage_run import Trained, stage, train
from tests.unit.engine.tiny_models import model

SGD = {"optimizer": "sgd", "learningRate": 0.1, "maxGradNorm": 0, "warmupSteps": 0, "lrSchedulerType": "constant"}


def guarded(*guards: dict[str, Any], training: dict[str, Any] | None = None, **fields: Any) -> Stage:
    """A stage of six steps of plain SGD under these guards."""
    return stage({**SGD, **(training or {})}, **({"regularization": list(guards)} if guards else {}), **fields)


def moved(trained: Trained, kind: str) -> float:
    """How far the trained weights are from where they started: the root of the sum of squares."""
    start = dict(model(kind).named_parameters())
    squares = [float((parameter.detach() - start[name].detach()).square().sum()) for name, parameter in trained.model.named_parameters()]
    return sum(squares) ** 0.5


def stopped_and_resumed(folder: Path, planned: Stage, step: int, **options: Any) -> tuple[Trained, Trained]:
    """The stage stopped after a step and gone on with, and the same stage undisturbed."""
    undisturbed, flag = train(folder / "undisturbed", planned, **options), StopFlag()

    def signal_at(activity: Activity, report: dict[str, Any]) -> None:
        if activity is Activity.TRAIN and report["done"] == step:
            flag.request("SIGTERM")

    with pytest.raises(Stopped, match=f"after step {step}"):
        train(folder / "stopped", planned, on_report=signal_at, stop=flag, **options)
    return train(folder / "stopped", planned, **options), undisturbed


def timeless(trained: Trained) -> list[dict[str, Any]]:
    """The curve without what depends on the clock."""
    return [{name: value for name, value in point.items() if name != "tokensPerSecond"} for point in trained.curve]


def assert_exact(resumed: Trained, undisturbed: Trained) -> None:
    assert (resumed.weights, resumed.samples) == (undisturbed.weights, undisturbed.samples)
    assert timeless(resumed) == timeless(undisturbed)
    assert resumed.outcome.metrics == undisturbed.outcome.metrics


def trainable(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
