"""EWC: the Fisher information is what the paper's formula gives, and it makes a second task forget less of the first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.regularization import Guard as Options
from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.checkpoint.snapshot import read_tensors
from finetune_trainer.engine.collate import Batch, Collator
from finetune_trainer.engine.trainer import batch_logits, batch_loss
from finetune_trainer.errors import TrainerError
from finetune_trainer.guards.ewc import Ewc, fisher
from finetune_trainer.modeling.start import Start
from finetune_trainer.tokenizer import load_tokenizer
from tests.unit.engine.stage_run import train as train_tiny
from tests.unit.engine.test_losses import CAUSAL as COLLATOR
from tests.unit.engine.test_losses import ROWS
from tests.unit.engine.tiny_models import FakeRows, model
from tests.unit.guards.runs import assert_exact, guarded, stopped_and_resumed
from tests.unit.models.cases import CAUSAL, build, job, train


class Softmax(nn.Module):
    """Logits W·x of a row's features x, which are the rows of a fixed table."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(3, 5, generator=generator))
        self.weight = nn.Parameter(torch.randn(4, 5, generator=generator) / 2)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids[:, 0]] @ self.weight.T)


def row(index: int) -> Batch:
    none = torch.zeros(0, dtype=torch.int64)
    return Batch({"input_ids": torch.tensor([[index]])}, none, torch.tensor([0]), torch.ones(1, dtype=torch.int64), none)


def test_the_fisher_information_of_a_softmax_model_is_the_closed_form() -> None:
    """F of W[c, j] is the mean over rows of p(c)(1 − p(c)) x(j)²."""
    net, times = Softmax(), 1500
    found = fisher(
        net, (row(n % 3) for n in range(3 * times)), {"weight": net.weight}, Objective.CLASSIFICATION, torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        p = (net.table @ net.weight.T).softmax(-1)
        exact = torch.einsum("nc,nj->cj", p * (1 - p), net.table.square()) / 3
    assert torch.allclose(found["weight"], exact, rtol=0.12, atol=0.01)
    assert found["weight"].mean() == pytest.approx(float(exact.mean()), rel=0.05)
    assert net.weight.requires_grad and net.table.requires_grad and net.weight.grad is None, "left as it was"


def test_the_gradient_of_a_batch_squared_is_another_quantity() -> None:
    """A negative control: squared batch gradients shrink with the batch, per-row ones do not."""
    net = Softmax()
    rows = [row(n % 3) for n in range(300)]
    one = Batch({"input_ids": torch.tensor([[n % 3] for n in range(300)])}, rows[0].where, torch.zeros(300, dtype=torch.int64), torch.ones(300, dtype=torch.int64), rows[0].rows)  # fmt: skip
    each = fisher(net, rows, {"weight": net.weight}, Objective.CLASSIFICATION, torch.Generator().manual_seed(1))
    batch = fisher(net, [one], {"weight": net.weight}, Objective.CLASSIFICATION, torch.Generator().manual_seed(1))
    assert float(batch["weight"].mean()) / 300 < 0.2 * float(each["weight"].mean())


@pytest.mark.parametrize("method", ["full", "lora", "dora"])
def test_the_fisher_information_under_an_adapter_is_that_of_the_weight(method: str, tiny_llama: Path) -> None:
    """At the anchor ΔW is zero, so an adapted model's information on W is the plain model's."""
    spec = job(("full", CAUSAL, None))
    plain = build(Start.base(tiny_llama), spec, 0).module
    name = "model.layers.0.self_attn.q_proj.weight"
    batches = [COLLATOR(ROWS, [index]) for index in range(4)]
    wanted = fisher(plain, batches, {name: dict(plain.named_parameters())[name]}, Objective.CAUSAL_LANGUAGE_MODELING, torch.Generator().manual_seed(2))[name]  # fmt: skip
    adapted = build(Start.base(tiny_llama), job((method, CAUSAL, None)), 0)
    guard = begun(adapted, tiny_llama)
    assert torch.allclose(guard.tensors()[name], wanted, rtol=1e-3, atol=1e-9)
    assert float(wanted.mean()) > 0


def begun(adapted: Any, folder: Path, strength: float = 2.0, source: int = 1) -> Ewc:
    import contextlib

    options = Options.model_validate({"type": "ewc", "strength": strength, "samples": 4})
    replaying = adapted.stage.model_copy(update={"data": guarded(data=REPLAYING).data})
    adapted.stage = replaying
    guard = Ewc(options, adapted, tokenizer=load_tokenizer(folder, job(("full", CAUSAL, None))), seed=2, where="here")
    rows = WithSources([len(ROWS.tokens(index)) for index in range(4)], sources=[source] * 4)
    rows.tokens = ROWS.tokens  # type: ignore[method-assign]
    trainer: Any = SimpleNamespace(model=adapted.module, rows=rows, collator=COLLATOR, args=SimpleNamespace(device=torch.device("cpu")))
    trainer.accelerator = SimpleNamespace(autocast=contextlib.nullcontext)
    guard.begin(trainer)
    guard.start(trainer)
    return guard


@pytest.mark.parametrize("method", ["full", "lora", "dora"])
def test_the_penalty_and_its_gradient_weigh_each_weight_by_its_information(method: str, tiny_llama: Path) -> None:
    adapted = build(Start.base(tiny_llama), job((method, CAUSAL, None)), 0)
    guard = begun(adapted, tiny_llama)
    train(adapted, seed=5)
    differences = {change.name: change.difference() for change in guard._changes}
    value = float(guard.pull(1.0))
    assert value == pytest.approx(sum(float((guard.tensors()[name] * difference.square()).sum()) for name, difference in differences.items()), rel=1e-4)  # fmt: skip
    gradients = {name: p.grad.clone() for name, p in adapted.module.named_parameters() if p.grad is not None}
    if method == "full":
        assert all(torch.allclose(gradients[name], 2.0 * guard.tensors()[name] * differences[name], rtol=1e-4) for name in differences)
    steps = {name: 1e-3 * torch.randn(gradient.shape, generator=torch.Generator().manual_seed(3)) for name, gradient in gradients.items()}
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for name, parameter in adapted.module.named_parameters():
                if name in steps:
                    parameter += sign * steps[name]
        values.append(float(guard.pull(1.0)))
    assert sum(float((gradients[name] * step).sum()) for name, step in steps.items()) == pytest.approx(
        (values[0] - values[1]) / 2, rel=2e-2
    )


REPLAYING: dict[str, Any] = {
    "train": [{"uri": "file://new.jsonl", "weight": 0.999}, {"uri": "file://old.jsonl", "weight": 0.001, "replay": True}]
}


class WithSources(FakeRows):
    """Rows of two sources: the second is replayed."""

    def __init__(self, lengths: list[int], *, sources: list[int], seed: int = 0) -> None:
        super().__init__(lengths, seed=seed)
        self.sources = np.asarray(sources, np.int64)


def old_and_new() -> WithSources:
    """Forty rows of the first task, then forty of the second; tokens of the two never meet."""
    rows = WithSources([12] * 80, sources=[1] * 40 + [0] * 40)
    generator = np.random.default_rng(9)
    for index in range(80):
        low, high = (5, 45) if index < 40 else (45, 90)
        start, stride = generator.integers(low, high), 3 if index < 40 else 7
        rows._tokens[index] = (low + (start + stride * np.arange(12)) % (high - low)).astype(np.int32)
    return rows


ADAM = {"optimizer": "adamw", "learningRate": 3e-3, "lrSchedulerType": "constant", "perDeviceTrainBatchSize": 20}


def loss_on(net: nn.Module, rows: Any, indexes: range) -> float:
    batch = Collator(Objective.SUPERVISED, 0)(rows, list(indexes))
    with torch.no_grad():
        return float(batch_loss(batch_logits(net.eval(), batch, Objective.SUPERVISED), batch)) / batch.predictions


def test_the_stronger_it_is_the_less_a_second_task_forgets_of_the_first(tmp_path: Path) -> None:
    rows = old_and_new()
    first = train_tiny(tmp_path / "first", guarded(training={**ADAM, "maxSteps": 60}, data=REPLAYING), rows=rows, chosen=range(40))
    learned = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    forgotten, gained = [], []
    for strength in (None, 1e3, 1e5):
        guards = [{"type": "ewc", "strength": strength, "samples": 40}] if strength else []
        planned = guarded(*guards, training={**ADAM, "maxSteps": 40}, data=REPLAYING)
        second = train_tiny(
            tmp_path / f"second-{strength}", planned, rows=rows, chosen=range(40, 80), prepare=lambda net: net.load_state_dict(learned)
        )
        forgotten.append(loss_on(second.model, rows, range(40)) - loss_on(first.model, rows, range(40)))
        gained.append(loss_on(first.model, rows, range(40, 80)) - loss_on(second.model, rows, range(40, 80)))
    assert forgotten[0] > forgotten[1] > forgotten[2]
    assert forgotten[0] > 0.1, "without it the first task suffers"
    assert forgotten[1] < 0.7 * forgotten[0]
    assert gained[1] > 0.3 * gained[0], "and the second is learned"


@pytest.mark.parametrize("kind", ["llama", "lora"])
def test_a_stage_that_was_stopped_ends_in_the_same_bytes(kind: str, tmp_path: Path) -> None:
    planned = guarded({"type": "ewc", "strength": 100, "samples": 6}, training={"optimizer": "adamw", "learningRate": 1e-3}, data=REPLAYING)
    options: dict[str, Any] = {"kind": kind, "dropout": 0.2, "rows": old_and_new(), "chosen": range(80)}
    resumed, undisturbed = stopped_and_resumed(tmp_path, planned, 3, **options)
    assert_exact(resumed, undisturbed)
    assert resumed.outcome.resolved["guards"] == undisturbed.outcome.resolved["guards"], "the same information, by its hash"
    assert resumed.outcome.resolved["guards"]["ewc"]["rows"] == 6
    newest = sorted(resumed.folder.glob("checkpoint-*"))[-1]
    assert all(name.startswith("ewc/") for name in read_tensors(newest, "guards"))


def test_without_rows_to_learn_from_it_is_refused(tiny_llama: Path) -> None:
    adapted = build(Start.base(tiny_llama), job(("lora", CAUSAL, None)), 0)
    with pytest.raises(TrainerError, match="replay sources have no row") as caught:
        begun(adapted, tiny_llama, source=0)
    assert (caught.value.reason, caught.value.where) == (Reason.DATA_EMPTY, "here")


def test_what_a_schedule_has_frozen_is_left_alone(tmp_path: Path) -> None:
    """Layer by layer from the top: a gradient of zero would let the optimizer decay what has not joined yet."""
    training = {**ADAM, "weightDecay": 0.5, "maxSteps": 4}
    method = {"type": "gradual", "gradual": {"everySteps": 3}}
    planned = guarded({"type": "ewc", "strength": 100, "samples": 4}, training=training, method=method, data=REPLAYING)
    start = dict(model("llama").named_parameters())
    trained = train_tiny(tmp_path, planned, rows=old_and_new(), chosen=range(80))
    moved = {name for name, parameter in trained.model.named_parameters() if not torch.equal(parameter, start[name])}
    assert any(".layers.0." in name for name in moved) and any(".layers.1." in name for name in moved)
    assert not any("embed" in name for name in moved), "they would join after step 6"
    assert trained.outcome.resolved["guards"]["ewc"]["rows"] == 4
