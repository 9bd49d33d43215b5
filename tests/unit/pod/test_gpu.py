"""A GPU's figures: what torch sees of it and no more, asked by the thread that reports. A small stand-in has the numbers that no CPU has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finetune_api.wire import Activity, ProgressUpdate
from finetune_trainer.gpu import gpu_figures, seen_by_torch
from finetune_trainer.remote_progress import RemoteReporter

WHOLE = {
    "gpu_memory_bytes": 40,
    "gpu_memory_peak_bytes": 48,
    "gpu_memory_total_bytes": 80,
    "gpu_utilization_percent": 97,
}


def raising(error: Exception) -> Callable[[int], int]:
    def ask(device: int) -> int:
        raise error

    return ask


def a_gpu(**other: Any) -> SimpleNamespace:
    """What `torch.cuda` answers where a GPU is in use."""
    answers: dict[str, Any] = {
        "memory_allocated": lambda device: 40,
        "max_memory_reserved": lambda device: 48,
        "get_device_properties": lambda device: SimpleNamespace(total_memory=80),
        "utilization": lambda device: 97,
    }
    return SimpleNamespace(**answers | other)


def test_the_whole_of_it() -> None:
    assert gpu_figures(a_gpu_is_seen()) == WHOLE
    assert ProgressUpdate.model_validate({"activity": "train", **gpu_figures(a_gpu_is_seen())}).gpu_utilization_percent == 97


def a_gpu_is_seen(**other: Any) -> Callable[[], Any]:
    return lambda: a_gpu(**other)


def test_torch_is_asked_for_what_it_has() -> None:
    """The stand-in answers to torch's own names; what their arguments are, torch says."""
    for name in vars(a_gpu()):
        assert callable(getattr(torch.cuda, name)), name


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_where_there_is_no_gpu_nothing_is_said_and_nothing_is_begun() -> None:
    assert gpu_figures() == {}
    assert not torch.cuda.is_initialized()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu() -> None:
    held = torch.ones(1024, device="cuda")
    figures = gpu_figures()
    assert held.nbytes <= figures["gpu_memory_bytes"] <= figures["gpu_memory_peak_bytes"] <= figures["gpu_memory_total_bytes"]


def test_while_torch_is_being_imported_it_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for half in (None, SimpleNamespace(), SimpleNamespace(cuda=SimpleNamespace())):
        monkeypatch.setitem(sys.modules, "torch", half)
        assert seen_by_torch() is None


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(raising(ModuleNotFoundError("pynvml")), id="no library for NVML"),
        pytest.param(raising(RuntimeError("cuda driver can't be loaded, is cuda enabled?")), id="no driver"),
        pytest.param(raising(sys.modules["pynvml"].NVMLError(3)), id="a part of a GPU: not supported"),
        pytest.param(lambda device: 101, id="more than all of the time"),
        pytest.param(lambda device: -1, id="less than none"),
        pytest.param(lambda device: None, id="no answer"),
    ],
)
def test_what_the_driver_does_not_say_is_left_out(ask: Callable[[int], Any]) -> None:
    figures = gpu_figures(a_gpu_is_seen(utilization=ask))
    assert figures == {name: value for name, value in WHOLE.items() if name != "gpu_utilization_percent"}


def test_they_go_with_each_report_and_are_asked_for_when_it_is_sent() -> None:
    sent: list[ProgressUpdate] = []
    asked: list[int] = []

    def gpu() -> dict[str, int]:
        asked.append(len(sent))
        return WHOLE

    reporter = RemoteReporter(sent.append, gpu=gpu, every=0.0)
    reporter.report(Activity.TRAIN, stage="domain", done=1, total=9, loss=2.0)
    assert asked == [], "the training thread was made to ask"
    reporter.deliver()
    reporter.report(Activity.EVALUATE, suite="in-domain", done=1, total=9, unit="rows")
    reporter.deliver()
    assert [(each.activity, each.gpu_memory_peak_bytes, each.gpu_utilization_percent) for each in sent] == [
        (Activity.TRAIN, 48, 97),
        (Activity.EVALUATE, 48, 97),
    ]
    assert asked == [0, 1]
