"""What may be sent, field by field, and what is said about the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_operator.progress.contract import read_kubeflow, read_update
from finetune_operator.progress.refusal import Refusal


def refused(body: bytes) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        read_update(body)
    return caught.value.status, caught.value.message


def test_a_whole_report() -> None:
    report = {
        "activity": "train",
        "stage": "domain",
        "done": 40,
        "total": 120,
        "unit": "steps",
        "percent": 12.5,
        "epoch": 0.4,
        "loss": 1.25,
        "learningRate": 2e-5,
        "gradNorm": 0.9,
        "tokensPerSecond": 5120.5,
        "gpuMemoryBytes": 42_949_672_960,
        "gpuMemoryPeakBytes": 51_539_607_552,
        "gpuMemoryTotalBytes": 85_899_345_920,
        "gpuUtilizationPercent": 97,
        "metrics": {"eval_loss": 1.5},
    }
    assert read_update(json.dumps(report).encode()).model_dump(mode="json", exclude_none=True) == report


def test_what_a_trainer_notices() -> None:
    """An older one says nothing of it, a later one may notice what nobody here knows, and what it says is shown to people."""
    notices = [{"reason": "LossFlat", "message": "flat\u001b[31m"}, {"reason": "Mood", "message": "bad"}]
    told = read_update(json.dumps({"activity": "train", "notices": notices}).encode()).notices
    assert told is not None
    assert [(each.reason, each.message) for each in told] == [("LossFlat", "flat")]
    assert read_update(b'{"activity": "train", "notices": []}').notices == []
    assert read_update(b'{"activity": "train"}').notices is None


def test_what_a_later_trainer_adds_is_let_through() -> None:
    assert read_update(b'{"activity": "load", "mood": "good"}').activity == "load"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        pytest.param(b"", 400, "no JSON", id="nothing"),
        pytest.param(b"\xff\xfe", 400, "no JSON", id="no text"),
        pytest.param(b'{"activity": "train"', 400, "no JSON", id="cut"),
        pytest.param(b"[" * 30_000, 400, "no JSON", id="deep"),
        pytest.param(b"[]", 422, "body", id="no object"),
        pytest.param(b"{}", 422, "activity: Field required", id="no activity"),
        pytest.param(b'{"activity": "sleep"}', 422, "activity", id="an activity that is none"),
        pytest.param(b'{"activity": "train", "loss": NaN}', 422, "loss: Input should be a finite number", id="NaN"),
        pytest.param(b'{"activity": "train", "loss": -Infinity}', 422, "loss: Input should be a finite number", id="infinite"),
        pytest.param(b'{"activity": "train", "loss": 1e308}', 422, "loss", id="1e308"),
        pytest.param(b'{"activity": "train", "loss": 1e999}', 422, "loss", id="more than a double"),
        pytest.param(b'{"activity": "train", "loss": "1.0"}', 422, "loss: Input should be a valid number", id="a text for a number"),
        pytest.param(b'{"activity": "train", "notices": [{"reason": "LossFlat"}]}', 422, "notices.0.message", id="a notice without words"),
        pytest.param(b'{"activity": "train", "notices": [1]}', 422, "notices.0", id="a notice that is none"),
        pytest.param(
            json.dumps({"activity": "train", "notices": [{"reason": "LossFlat", "message": ""}] * 9}).encode(),
            422,
            "notices",
            id="too many notices",
        ),
        pytest.param(b'{"activity": "train", "gpuMemoryBytes": -1}', 422, "gpuMemoryBytes", id="less than no memory"),
        pytest.param(b'{"activity": "train", "gpuMemoryPeakBytes": 1e308}', 422, "gpuMemoryPeakBytes", id="memory of 1e308"),
        pytest.param(
            b'{"activity": "train", "gpuMemoryTotalBytes": 1000000000001}', 422, "gpuMemoryTotalBytes", id="more memory than there is"
        ),
        pytest.param(b'{"activity": "train", "gpuUtilizationPercent": 101}', 422, "gpuUtilizationPercent", id="busier than busy"),
        pytest.param(b'{"activity": "train", "gpuUtilizationPercent": NaN}', 422, "gpuUtilizationPercent", id="busy NaN"),
        pytest.param(b'{"activity": "train", "done": -1}', 422, "done", id="a negative step"),
        pytest.param(b'{"activity": "train", "done": 1.5}', 422, "done", id="half a step"),
        pytest.param(b'{"activity": "train", "done": true}', 422, "done", id="a step that is true"),
        pytest.param(b'{"activity": "train", "done": 5, "total": 4}', 422, "done is more than total", id="more than all"),
        pytest.param(b'{"activity": "train", "total": 0}', 422, "total", id="nothing to do"),
        pytest.param(b'{"activity": "train", "percent": 100.5}', 422, "percent", id="more than a hundred"),
        pytest.param(b'{"activity": "train", "percent": -1}', 422, "percent", id="less than nothing"),
        pytest.param(b'{"activity": "train", "tokensPerSecond": -5}', 422, "tokensPerSecond", id="backwards"),
        pytest.param(b'{"activity": "train", "metrics": {"eval_loss": NaN}}', 422, "metrics.eval_loss", id="a metric that is none"),
        pytest.param(
            json.dumps({"activity": "train", "metrics": {f"m{n}": 1.0 for n in range(33)}}).encode(), 422, "metrics", id="too many metrics"
        ),
        pytest.param(json.dumps({"activity": "train", "stage": "s" * 300}).encode(), 422, "stage", id="a long name"),
        pytest.param(b'{"activity": "train", "done": 1' + b"0" * 5000 + b"}", 400, "no JSON", id="a number of 5,000 digits"),
    ],
)
def test_what_is_refused_and_what_is_said(body: bytes, status: int, said: str) -> None:
    code, message = refused(body)
    assert (code, said in message) == (status, True), message
    assert len(message) < 600


def test_nothing_that_was_sent_is_repeated() -> None:
    _, message = refused(b'{"activity": "hf_secret", "loss": "hf_secret"}')
    assert "hf_secret" not in message


def kubeflow(percent: int | None, metrics: dict[str, str]) -> bytes:
    status: dict[str, Any] = {"lastUpdatedTime": "2030-01-01T00:00:00+00:00", "estimatedRemainingSeconds": 3}
    status |= {} if percent is None else {"progressPercentage": percent}
    return json.dumps({"trainerStatus": {**status, "metrics": [{"name": k, "value": v} for k, v in metrics.items()]}}).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(kubeflow(0, {"total_steps": "40"}), {"percent": 0.0, "total": 40}, id="the beginning"),
        pytest.param(
            kubeflow(25, {"loss": "1.5", "grad_norm": "0.9", "learning_rate": "2e-05", "current_step": "10", "total_steps": "40", "current_epoch": "0.25"}),
            {"percent": 25.0, "loss": 1.5, "gradNorm": 0.9, "learningRate": 2e-05, "done": 10, "total": 40, "epoch": 0.25},
            id="a step",
        ),
        pytest.param(kubeflow(99, {"loss": "nan", "eval_loss": "1.25", "train_runtime": "17.5"}), {"percent": 99.0, "metrics": {"eval_loss": 1.25}}, id="nan"),
        pytest.param(kubeflow(None, {"total_steps": "-1"}), {}, id="of unknown length"),
    ],
)  # fmt: skip
def test_kubeflows_status_is_a_report(body: bytes, expected: dict[str, Any]) -> None:
    read = read_kubeflow(body).model_dump(mode="json", exclude_defaults=True)
    assert read == {"activity": "train", **expected}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 422),
        (b'{"trainerStatus": {"progressPercentage": 101}}', 422),
        (b'{"trainerStatus": {"progressPercentage": "5"}}', 422),
        (b'{"trainerStatus": {"metrics": [{"name": "current_step", "value": "9"}, {"name": "total_steps", "value": "3"}]}}', 422),
        (b"x", 400),
    ],
)
def test_what_is_none_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        read_kubeflow(body)
    assert caught.value.status == status
