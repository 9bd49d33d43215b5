"""DANN: the gradient is turned round, and features no longer tell the domain, or the confounder, while the task is learned as before."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn import functional

from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.checkpoint.snapshot import read_tensors
from finetune_trainer.engine.collate import Collator
from finetune_trainer.engine.losses import token_logits
from finetune_trainer.errors import TrainerError
from finetune_trainer.guards.dann import class_heads, ramp, reversed_gradient, row_features
from finetune_trainer.guards.discriminator import Discriminator
from tests.unit.engine.stage_run import train as train_tiny
from tests.unit.engine.tiny_models import FakeRows, model
from tests.unit.guards.runs import assert_exact, guarded, stopped_and_resumed


@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
def test_the_gradient_that_comes_back_is_minus_lambda_times_the_gradient(strength: float) -> None:
    torch.manual_seed(0)
    features, head = torch.randn(6, 4, requires_grad=True), nn.Linear(4, 3)
    domains = torch.tensor([0, 1, 2, 0, 1, 2])

    def gradients(turned: bool) -> tuple[torch.Tensor, torch.Tensor]:
        told = head(reversed_gradient(features, strength) if turned else features)
        found = torch.autograd.grad(functional.cross_entropy(told, domains), [features, head.weight])
        return found[0], found[1]

    assert torch.equal(gradients(True)[0], -strength * gradients(False)[0])
    assert torch.equal(gradients(True)[1], gradients(False)[1]), "what tells the domain learns as ever"
    assert torch.equal(reversed_gradient(features, strength), features)


def test_the_strength_grows_from_nothing_as_in_the_paper() -> None:
    assert [ramp(0.0), ramp(0.5), ramp(1.0)] == pytest.approx([0.0, 2 / (1 + math.exp(-5)) - 1, 2 / (1 + math.exp(-10)) - 1])


def test_features_are_what_the_head_reads_or_the_mean_over_a_rows_own_tokens() -> None:
    hidden, lengths = torch.arange(24.0).reshape(2, 3, 4), torch.tensor([3, 1])
    assert torch.equal(row_features(hidden, lengths, last=False), torch.stack([hidden[0].mean(0), hidden[1, 0]]))
    assert torch.equal(row_features(hidden, lengths, last=True), torch.stack([hidden[0, 2], hidden[1, 0]]))
    assert torch.equal(row_features(hidden[0], lengths, last=True), hidden[0])


@pytest.mark.parametrize("kind", ["bert classifier", "llama classifier"])
def test_the_heads_input_gives_the_logits(kind: str) -> None:
    net: Any = model(kind).eval()
    batch, kept = Collator(Objective.CLASSIFICATION, 0)(FakeRows([9, 5, 7]), range(3)), []
    (head,) = class_heads(net)
    handle = head.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    logits = net(**batch.inputs).logits
    handle.remove()
    assert torch.allclose(head(row_features(kept[0], batch.lengths, last=True)), logits, atol=1e-6)


def taught(classes: int = 0) -> Discriminator:
    """It has seen forty steps of rows whose domain is in one feature of four, and in the class of most."""
    torch.manual_seed(0)
    discriminator = Discriminator(4, 2, classes=classes)
    for _ in range(40):
        domains = torch.randint(0, 2, (32,))
        features = torch.randn(32, 4)
        features[:, 1] = 1e-4 * (features[:, 1] + 3 * domains)
        discriminator.learn(features, domains, (domains + (torch.rand(32) < 0.2)) % 2)
    return discriminator


def test_a_domain_that_is_made_small_is_told_all_the_same() -> None:
    discriminator = taught()
    assert float(discriminator.accuracy) > 0.85
    assert discriminator.chance() == pytest.approx(0.5, abs=0.03)
    assert taught(classes=2).chance() == pytest.approx(0.8, abs=0.03), "who is told the class guesses better"
    assert not any(parameter.requires_grad for parameter in discriminator.parameters()), "nothing but its own updates changes it"


def test_a_discriminator_that_is_put_back_learns_on_in_the_same_bits() -> None:
    ones, again = taught(classes=2), Discriminator(4, 2, classes=2)
    again.restore(ones.remembered())
    for discriminator in (ones, again):
        generator = torch.Generator().manual_seed(5)
        discriminator.learn(torch.randn(8, 4, generator=generator), torch.arange(8) % 2, torch.arange(8) // 2 % 2)
    assert all(torch.equal(tensor, again.remembered()[name]) for name, tensor in ones.remembered().items())


def test_a_step_that_is_no_number_teaches_nothing() -> None:
    discriminator = taught()
    before = discriminator.remembered()
    discriminator.learn(torch.full((2, 4), torch.nan), torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert all(torch.equal(tensor, discriminator.remembered()[name]) for name, tensor in before.items())


class Marked(FakeRows):
    """A row's words: three say its class, three its domain (or confounder), four are drawn, all in places that are drawn; two answer by the class."""

    def __init__(self, count: int, *, seed: int, role: str = "domain") -> None:
        super().__init__([12] * count)
        self.group_names = {role: ["forum", "paper"]}
        generator = np.random.default_rng(seed)
        for index in range(count):
            words, places = generator.integers(20, 90, 12), generator.permutation(10)
            words[places[:3]] = 5 + self.label(index)
            words[places[3:6]] = 10 + self.groups(index)[0]
            words[10:] = 15 + self.label(index)
            self._tokens[index] = words.astype(np.int32)

    def groups(self, index: int) -> list[int]:
        return [index // 3 % 2]

    def supervised(self, index: int) -> npt.NDArray[np.bool_]:
        return np.arange(12) >= 10


GUARD = {"type": "dann", "strength": 1.0}


@pytest.mark.parametrize(("kind", "objective"), [("bert classifier", "classification"), ("lora", "supervised")])
def test_a_stage_that_was_stopped_ends_in_the_same_bytes(kind: str, objective: str, tmp_path: Path) -> None:
    planned = guarded(GUARD, training={"optimizer": "adamw", "learningRate": 1e-3}, objective=objective)
    role = "confounder" if objective == "classification" else "domain"
    rows = Marked(60, seed=4, role=role)
    resumed, undisturbed = stopped_and_resumed(tmp_path, planned, 3, kind=kind, rows=rows, dropout=0.1)
    assert_exact(resumed, undisturbed)
    kept = read_tensors(sorted(resumed.folder.glob("checkpoint-*"))[-1], "guards")
    assert {f"dann/{role}/{name}" for name in ("layers.0.weight", "layers.0.weight/exp_avg", "newest/features", "counts")} <= kept.keys()
    told_the_class = 3 if role == "confounder" else 1
    assert kept[f"dann/{role}/counts"].shape == (told_the_class, 2), "of each class apart where the discriminator is told it"
    assert resumed.outcome.resolved["guards"]["dann"]["groups"] == {role: ["forum", "paper"]}
    assert undisturbed.curve[0]["guards"]["dann"] == pytest.approx(math.log(2), abs=0.3), "at first it guesses"
    assert {f"guard_dann_{role}", f"guard_dann_{role}_chance"} <= undisturbed.outcome.metrics.keys()


def test_without_anything_trained_below_the_head_it_is_refused(tmp_path: Path) -> None:
    def freeze(net: nn.Module) -> None:
        net.base_model.requires_grad_(False)  # type: ignore[operator, union-attr]

    with pytest.raises(TrainerError, match="this stage trains nothing below its head"):
        train_tiny(tmp_path, guarded(GUARD, objective="classification"), kind="bert classifier", rows=Marked(12, seed=4), prepare=freeze)


def told_by_a_fresh_probe(features: torch.Tensor, domains: torch.Tensor) -> float:
    """The accuracy, on the second half of the rows, of a linear classifier of the first half's normalised features."""
    half = len(features) // 2
    scaled = (features - features[:half].mean(0)) / (features[:half].std(0) + 1e-6)
    torch.manual_seed(1)
    probe = nn.Linear(scaled.shape[1], 2)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-2, weight_decay=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        functional.cross_entropy(probe(scaled[:half]), domains[:half]).backward()
        optimizer.step()
    return float((probe(scaled[half:]).argmax(-1) == domains[half:]).float().mean())


def test_a_linear_probe_falls_to_chance_on_new_rows_while_the_task_stays(tmp_path: Path) -> None:
    training = {"optimizer": "adamw", "learningRate": 2e-3, "maxSteps": 150, "perDeviceTrainBatchSize": 40}
    new = Marked(600, seed=99)
    batch, domains = (
        Collator(Objective.SUPERVISED, 0)(new, range(len(new))),
        torch.tensor([new.groups(index)[0] for index in range(len(new))]),
    )
    probed, right = {}, {}
    for name, guards in (("free", []), ("guarded", [GUARD])):
        rows, kept = Marked(400, seed=4), []
        net = train_tiny(tmp_path / name, guarded(*guards, training=training), rows=rows).model.eval()
        handle = net.base_model.register_forward_hook(lambda module, inputs, output, kept=kept: kept.append(output[0]))  # type: ignore[operator, union-attr]
        with torch.no_grad():
            right[name] = float((token_logits(net, batch).argmax(-1) == batch.targets).float().mean())
        handle.remove()
        probed[name] = told_by_a_fresh_probe(row_features(kept[0], batch.lengths, last=False), domains)
    assert probed["free"] > 0.8, "without it the domain is plain to see"
    assert probed["guarded"] < 0.65, "chance is a half"
    assert min(right.values()) > 0.95, "and the task is learned"
