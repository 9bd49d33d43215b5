"""DANN: the gradient is turned round, and features no longer tell the domain, or the confounder, while the task is learned as before."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.checkpoint.snapshot import read_tensors
from finetune_trainer.engine.collate import Collator
from finetune_trainer.errors import TrainerError
from finetune_trainer.guards.dann import class_heads, ramp, reversed_gradient, row_features
from finetune_trainer.guards.discriminator import Discriminator
from tests.unit.engine.stage_run import train as train_tiny
from tests.unit.engine.tiny_models import FakeRows, model
from tests.unit.guards.marked import CASES, Case, Marked, shown
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
    """It has seen forty steps of rows whose domain is in one feature of four, a small one, and in the class of most."""
    torch.manual_seed(0)
    discriminator = Discriminator(2, classes=classes)
    for _ in range(40):
        domains = torch.randint(0, 2, (32,))
        features = torch.randn(32, 4)
        features[:, 1] = 0.03 * (features[:, 1] + 3 * domains)
        discriminator.learn(features, domains, (domains + (torch.rand(32) < 0.2)) % 2)
    return discriminator


def test_a_domain_that_is_made_small_is_told_all_the_same() -> None:
    discriminator = taught()
    assert float(discriminator.accuracy) > 0.85
    assert discriminator.chance() == pytest.approx(0.5, abs=0.03)
    assert taught(classes=2).chance() == pytest.approx(0.8, abs=0.03), "who is told the class guesses better"


def test_a_domain_that_no_plane_parts_is_told_all_the_same() -> None:
    torch.manual_seed(0)
    domains = torch.arange(1000) % 2
    features = torch.randn(1000, 2)
    features[:, 1] = torch.where(domains == 1, 3.0, 0.0) * features[:, 1].sign()
    discriminator, new = Discriminator(2), slice(500, 1000)
    discriminator.learn(features[:500], domains[:500], domains[:500])
    told = discriminator(features[new], domains[new]).argmax(-1) == domains[new]
    assert float(told.float().mean()) > 0.65, "a plane would tell a half"


def wholly_told() -> tuple[Discriminator, torch.Tensor, torch.Tensor]:
    """A discriminator, and the features and domains that it has learned: the two are a hundred deviations apart."""
    discriminator = Discriminator(2)
    domains = torch.arange(64) % 2
    torch.manual_seed(0)
    features = torch.randn(64, 4) + 100.0 * domains[:, None]
    discriminator.learn(features, domains, domains)
    features.requires_grad_(True)
    return discriminator, features, domains


def test_what_is_wholly_told_has_a_gradient_still() -> None:
    discriminator, features, domains = wholly_told()
    losses = discriminator.losses(features, domains, domains)
    (gradient,) = torch.autograd.grad(losses.sum(), [features])
    assert float(losses.mean().detach()) < 0.5, "1 were a guess"
    assert ((gradient.sum(1) < 0) == (domains == 1)).all(), "turned round, it brings the two together"


def test_a_row_that_guessing_would_tell_better_is_let_be() -> None:
    """Else the model would be paid, without bound, for features that tell the domain the other way round."""
    discriminator, features, domains = wholly_told()
    swapped = discriminator.losses(features, 1 - domains, domains)
    (gradient,) = torch.autograd.grad(swapped.sum(), [features])
    assert not gradient.any()
    assert torch.allclose(swapped, torch.ones(64))


def test_a_confounder_that_only_the_class_tells_is_not_told_beside_it() -> None:
    """The features are the class and noise: a discriminator that isn't told the class tells the confounder by them."""
    torch.manual_seed(0)
    classes = torch.arange(2000) % 2
    confounders = (classes + (torch.rand(2000) < 0.2)) % 2
    features = torch.randn(2000, 4) + 5.0 * classes[:, None]
    found = []
    for discriminator in (Discriminator(2, classes=2), Discriminator(2)):
        discriminator.learn(features[:500], confounders[:500], classes[:500])
        found.append(float(discriminator.losses(features[500:], confounders[500:], classes[500:]).mean()))
    assert found[0] == pytest.approx(1.0, abs=0.1)
    assert found[1] < 0.85


def test_a_discriminator_that_is_put_back_learns_on_in_the_same_bits() -> None:
    ones, again = taught(classes=2), Discriminator(2, classes=2)
    again.restore(ones.remembered())
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(8, 4, generator=generator), torch.arange(8) % 2, torch.arange(8) // 2 % 2
    assert torch.equal(ones.losses(*rows), again.losses(*rows))
    for discriminator in (ones, again):
        discriminator.learn(*rows)
    assert all(torch.equal(tensor, again.remembered()[name]) for name, tensor in ones.remembered().items())
    assert torch.equal(ones.losses(*rows), again.losses(*rows))


def test_a_step_that_is_no_number_teaches_nothing() -> None:
    discriminator = taught()
    before = discriminator.remembered()
    discriminator.learn(torch.full((2, 4), torch.nan), torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert all(torch.equal(tensor, discriminator.remembered()[name]) for name, tensor in before.items())


GUARD = {"type": "dann", "strength": 1.0}


@pytest.mark.parametrize(("kind", "objective"), [("bert classifier", "classification"), ("lora", "supervised")])
def test_a_stage_that_was_stopped_ends_in_the_same_bytes(kind: str, objective: str, tmp_path: Path) -> None:
    planned = guarded(GUARD, training={"optimizer": "adamw", "learningRate": 1e-3}, objective=objective)
    role = "confounder" if objective == "classification" else "domain"
    rows = Marked(60, seed=4, role=role)
    resumed, undisturbed = stopped_and_resumed(tmp_path, planned, 3, kind=kind, rows=rows, dropout=0.1)
    assert_exact(resumed, undisturbed)
    kept = read_tensors(sorted(resumed.folder.glob("checkpoint-*"))[-1], "guards")
    assert {f"dann/{role}/{name}" for name in ("newest/features", "newest/domains", "counts")} <= kept.keys()
    told_the_class = 3 if role == "confounder" else 1
    assert kept[f"dann/{role}/counts"].shape == (told_the_class, 2), "of each class apart where the discriminator is told it"
    assert resumed.outcome.resolved["guards"]["dann"]["groups"] == {role: ["forum", "paper"]}
    assert undisturbed.curve[0]["guards"]["dann"] == pytest.approx(1.0), "at first it guesses"
    assert {f"guard_dann_{role}", f"guard_dann_{role}_chance"} <= undisturbed.outcome.metrics.keys()


def test_without_anything_trained_below_the_head_it_is_refused(tmp_path: Path) -> None:
    def freeze(net: nn.Module) -> None:
        net.base_model.requires_grad_(False)  # type: ignore[operator, union-attr]

    with pytest.raises(TrainerError, match="this stage trains nothing below its head"):
        train_tiny(tmp_path, guarded(GUARD, objective="classification"), kind="bert classifier", rows=Marked(12, seed=4), prepare=freeze)


@pytest.mark.parametrize(("case", "seed"), [(CASES[0], 1), (CASES[0], 2), (CASES[0], 3), *((case, 1) for case in CASES[1:])])
def test_probes_fall_to_chance_or_near_it_on_new_rows_while_the_task_stays(case: Case, seed: int, tmp_path: Path) -> None:
    """Chance is a half, and 0.022 the half of its interval. Of the twelve runs in docs/guards.md the worst had 0.546, and 0.520 with a hidden layer."""
    begun, ended = shown(tmp_path, case, seed, layered=True)
    assert begun.linear > 0.95, "what the stage starts from tells it plainly"
    assert ended.linear < 0.58
    assert ended.layered is not None and ended.layered < 0.55
    assert ended.task > 0.99
