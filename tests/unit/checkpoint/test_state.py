"""The state of a run: kept by names, bit for bit, and refused where it is another run's, or no longer finite."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers.optimization import Adafactor

from finetune_api.constants import Reason
from finetune_trainer.checkpoint import optimizer_state, random_state, state
from finetune_trainer.checkpoint.snapshot import Snapshot, read_document, read_tensors
from finetune_trainer.errors import TrainerError


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 2))


def groups(network: nn.Module) -> list[dict[str, object]]:
    """Two groups, as Trainer makes them."""
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    return [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        inputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
        network(inputs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def written(folder: Path, snapshot: Snapshot) -> Path:
    for name, chunks in snapshot.files():
        (folder / name).write_bytes(b"".join(bytes(chunk) for chunk in chunks))
    return folder


OPTIMIZERS: dict[str, Callable[[list[dict[str, object]]], torch.optim.Optimizer]] = {
    "AdamW": lambda params: torch.optim.AdamW(params, lr=0.01),
    "fused AdamW": lambda params: torch.optim.AdamW(params, lr=0.01, fused=True),
    "Adafactor": lambda params: Adafactor(params, lr=0.01, relative_step=False, scale_parameter=False),
    "SGD": lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_goes_on_bit_for_bit(tmp_path: Path, kind: str) -> None:
    network = model()
    optimizer = OPTIMIZERS[kind](groups(network))
    train(network, optimizer, range(5))
    weights = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    folder = written(tmp_path, optimizer_state.capture_optimizer(optimizer, state.parameter_names(network)))
    train(network, optimizer, range(5, 10))

    resumed = model()
    resumed.load_state_dict(weights)
    other = OPTIMIZERS[kind](groups(resumed))
    tensors, document = read_tensors(folder, "optimizer"), read_document(folder, "optimizer")
    optimizer_state.restore_optimizer(other, state.parameter_names(resumed), tensors, document)
    train(resumed, other, range(5, 10))
    assert state.digest(dict(resumed.named_parameters())) == state.digest(dict(network.named_parameters()))


def test_state_belongs_to_names_not_to_places(tmp_path: Path) -> None:
    network = model()
    optimizer = OPTIMIZERS["AdamW"](groups(network))
    train(network, optimizer, range(5))
    names = state.parameter_names(network)
    folder = written(tmp_path, optimizer_state.capture_optimizer(optimizer, names))
    turned = OPTIMIZERS["AdamW"]([{**group, "params": list(reversed(group["params"]))} for group in groups(network)])  # type: ignore[call-overload]
    optimizer_state.restore_optimizer(turned, names, read_tensors(folder, "optimizer"), read_document(folder, "optimizer"))
    for parameter in network.parameters():
        assert torch.equal(turned.state[parameter]["exp_avg"], optimizer.state[parameter]["exp_avg"]), names[id(parameter)]


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    network = model()
    names = state.parameter_names(network)
    folder = written(tmp_path, optimizer_state.capture_optimizer(OPTIMIZERS["AdamW"](groups(network)), names))
    with pytest.raises(TrainerError) as caught:
        optimizer_state.restore_optimizer(
            OPTIMIZERS["SGD"](groups(network)), names, {}, json.loads((folder / "optimizer.json").read_text())
        )
    assert caught.value.reason is Reason.CHECKPOINT_INVALID
    assert str(caught.value) == "the checkpoint's optimizer (AdamW, 6 parameters) is not the one that trains (SGD, 6 parameters)"


WRONG: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "one is missing": ({"a": torch.zeros(2)}, "b is missing from the checkpoint"),
    "one too many": ({"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}, "c is not in the model"),
    "another shape": (
        {"a": torch.zeros(2), "b": torch.zeros(4)},
        "b is torch.float32 [4] in the checkpoint and torch.float32 [3] in the model",
    ),
    "another type": (
        {"a": torch.zeros(2), "b": torch.zeros(3).bfloat16()},
        "b is torch.bfloat16 [3] in the checkpoint and torch.float32 [3] in the model",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_weights_are_refused_and_the_model_stays(tmp_path: Path, case: str) -> None:
    stored, message = WRONG[case]
    parameters = {"a": torch.ones(2), "b": torch.ones(3)}
    with pytest.raises(TrainerError) as caught:
        state.restore_weights(written(tmp_path, Snapshot({"weights": stored})), parameters)
    assert caught.value.exit_code == 31 and str(caught.value).endswith(f"not those of the model that trains: {message}")
    assert all(bool((tensor == 1).all()) for tensor in parameters.values())


FINITE: dict[str, tuple[torch.Tensor, bool]] = {
    "numbers": (torch.tensor([1.0, -2.0]), True),
    "large numbers": (torch.full((4,), 3e38), True),
    "nothing": (torch.empty(0), True),
    "a NaN among numbers": (torch.tensor([1.0, float("nan"), 2.0]), False),
    "a NaN in the last place": (torch.cat([torch.ones(999), torch.tensor([float("nan")])]), False),
    "plus infinity": (torch.tensor([1.0, float("inf")]), False),
    "minus infinity": (torch.tensor([float("-inf"), 1.0]), False),
    "bfloat16": (torch.ones(3).bfloat16(), True),
    "a NaN in bfloat16": (torch.tensor([1.0, float("nan")]).bfloat16(), False),
}


@pytest.mark.parametrize("case", FINITE)
def test_what_is_not_finite_is_seen(case: str) -> None:
    tensor, finite = FINITE[case]
    assert state.not_finite({"first": torch.ones(2), "it": tensor}) == ([] if finite else ["it"])


BASE = {"a": torch.arange(4.0), "b": torch.zeros(2, 3)}
DIFFERENT: dict[str, dict[str, torch.Tensor]] = {
    "a name": {"c": BASE["a"], "b": BASE["b"]},
    "a shape": {"a": BASE["a"].reshape(2, 2), "b": BASE["b"]},
    "a type of the same bytes": {"a": BASE["a"].view(torch.int32), "b": BASE["b"]},
    "one bit": {"a": BASE["a"], "b": -BASE["b"]},
    "one less": {"a": BASE["a"]},
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_the_digest_sees(case: str) -> None:
    assert state.digest(DIFFERENT[case]) != state.digest(BASE)


def test_the_digest_does_not_see_order_and_layout() -> None:
    turned = {"b": BASE["b"].T.contiguous().T, "a": BASE["a"].clone().requires_grad_()}
    assert state.digest(turned) == state.digest(BASE)


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        float(torch.rand(1)),
        float(torch.randn(1)),
    ]


def test_generators_come_back_through_files(tmp_path: Path) -> None:
    random.gauss(0, 1)  # leaves a second number behind, as numpy's does
    np.random.randn()
    folder = written(tmp_path, random_state.capture_random())
    expected = [draw() for _ in range(700)]  # past the end of the Mersenne twister's block
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    state.restore_generators(folder)
    assert [draw() for _ in range(700)] == expected


def test_what_is_drawn_inside_is_not_missing_outside() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="stop"), random_state.preserved_random():
        draw()
        raise RuntimeError("stop")
    assert torch.equal(torch.get_rng_state(), before)
