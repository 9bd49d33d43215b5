"""Mixout, NEFTune and label smoothing, as their papers define them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from finetune_trainer.engine.trainer import batch_logits, batch_loss
from finetune_trainer.guards.mixout import mixed
from finetune_trainer.guards.neftune import noise
from tests.unit.engine.stage_run import train as train_tiny
from tests.unit.engine.test_losses import CAUSAL as COLLATOR
from tests.unit.engine.test_losses import EVERY, ROWS
from tests.unit.engine.tiny_models import model
from tests.unit.guards.runs import assert_exact, guarded, moved, stopped_and_resumed

MIXOUT = {"type": "mixout", "probability": 0.5}
ADAM = {"optimizer": "adamw", "learningRate": 1e-3}


def test_a_mixed_weight_is_the_weight_on_average_and_the_anchor_where_masked() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, anchor = torch.randn(30, 20, generator=generator), torch.randn(30, 20, generator=generator)
    probability, total = 0.3, torch.zeros(30, 20)
    for _ in range(4000):
        mask = torch.rand(30, 20, generator=generator) < probability
        total += mixed(weight, anchor, mask, probability)
    assert torch.allclose(total / 4000, weight, atol=0.15)
    everywhere = mixed(weight, anchor, torch.ones(30, 20, dtype=torch.bool), probability)
    assert torch.allclose(everywhere, anchor, atol=1e-6)
    assert torch.equal(mixed(anchor, anchor, mask, probability) - anchor < 1e-6, torch.ones(30, 20, dtype=torch.bool))
    dropout = mixed(weight, torch.zeros(30, 20), mask, probability)
    assert torch.allclose(dropout, weight * ~mask / (1 - probability)), "with an anchor of zeros it is dropout"


def test_masked_weights_get_no_gradient_and_the_others_theirs_over_one_minus_p(tmp_path: Path) -> None:
    """One step of SGD from the anchor, where the mixed weights are the weights: half of each linear weight stays, the rest moves twice as far."""
    training = {"maxSteps": 1}
    free = train_tiny(tmp_path / "free", guarded(training=training))
    mixing = train_tiny(tmp_path / "mixed", guarded(MIXOUT, training=training))
    start = dict(model("llama").named_parameters())
    ours, theirs = dict(mixing.model.named_parameters()), dict(free.model.named_parameters())
    for name, weight in ours.items():
        step, plain = (weight - start[name]).detach(), (theirs[name] - start[name]).detach()
        if "proj" not in name and name != "lm_head.weight":
            assert torch.allclose(step, plain, atol=1e-6), name
            continue
        still = step == 0
        assert 0.4 < float(still.float().mean()) < 0.6, name
        assert torch.allclose(step[~still], 2 * plain[~still], rtol=1e-3, atol=1e-7), name


def test_mixout_keeps_the_weights_nearer_to_the_anchor(tmp_path: Path) -> None:
    """What the paper proves for a strongly convex loss: it works as a penalty on the distance, stronger with p."""
    training = {"maxSteps": 60, "perDeviceTrainBatchSize": 20, "learningRate": 0.2}
    runs = [train_tiny(tmp_path / "0", guarded(training=training))]
    runs += [train_tiny(tmp_path / f"{p}", guarded({"type": "mixout", "probability": p}, training=training)) for p in (0.9,)]
    assert moved(runs[1], "llama") > 0
    assert runs[0].curve[-1]["loss"] < runs[1].curve[-1]["loss"], "noise costs training loss"
    assert runs[1].outcome.resolved["guards"]["mixout"] == {"probability": 0.9, "anchor": "base", "weights": 15}


def test_noise_is_bounded_by_alpha_over_the_root_of_tokens_times_width() -> None:
    torch.manual_seed(0)
    lengths, width = torch.tensor([4, 9, 25]), 64
    drawn = noise(torch.zeros(3, 25, width), lengths, 5.0)
    for row, length in enumerate(lengths.tolist()):
        bound = 5.0 / math.sqrt(length * width)
        assert float(drawn[row, :length].abs().max()) <= bound
        assert float(drawn[row, :length].abs().max()) > 0.95 * bound
        assert float(drawn[row, :length].var()) == pytest.approx(bound**2 / 3, rel=0.15), "uniform"
        assert not drawn[row, length:].any(), "padding gets none"


def test_noise_changes_training_but_no_measurement(tmp_path: Path) -> None:
    still = {**ADAM, "learningRate": 1e-9}
    plain = train_tiny(tmp_path / "plain", guarded(training=still), validated=True)
    noisy = train_tiny(tmp_path / "noisy", guarded(training={**still, "neftuneNoiseAlpha": 20}), validated=True)
    assert plain.curve[0]["loss"] != noisy.curve[0]["loss"]
    assert plain.outcome.metrics["eval_loss"] == pytest.approx(noisy.outcome.metrics["eval_loss"], abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_targets_are_shared_by_all_tokens(smoothing: float) -> None:
    net, batch = model("llama"), COLLATOR(ROWS, EVERY)
    logits = batch_logits(net, batch, COLLATOR.objective)
    log_q = functional.log_softmax(logits.float(), -1)
    target = functional.one_hot(batch.targets, logits.shape[-1]) * (1 - smoothing) + smoothing / logits.shape[-1]
    assert float(batch_loss(logits, batch, smoothing).detach()) == pytest.approx(float(-(target * log_q).sum().detach()), rel=1e-5)


def test_smoothing_changes_training_but_no_measurement(tmp_path: Path) -> None:
    still = {**ADAM, "learningRate": 1e-9}
    plain = train_tiny(tmp_path / "plain", guarded(training=still), validated=True)
    smooth = train_tiny(tmp_path / "smooth", guarded(training={**still, "labelSmoothingFactor": 0.2}), validated=True)
    assert plain.curve[0]["loss"] != smooth.curve[0]["loss"]
    assert plain.outcome.metrics["eval_loss"] == pytest.approx(smooth.outcome.metrics["eval_loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("guards", "training"),
    [
        ((MIXOUT,), {}),
        ((), {"neftuneNoiseAlpha": 5}),
        ((MIXOUT, {"type": "l2sp", "strength": 0.1}), {"labelSmoothingFactor": 0.1, "neftuneNoiseAlpha": 5}),
    ],
    ids=["mixout", "neftune", "all together"],
)
def test_a_stage_that_was_stopped_ends_in_the_same_bytes(
    guards: tuple[dict[str, object], ...], training: dict[str, object], tmp_path: Path
) -> None:
    planned = guarded(*guards, training={**ADAM, **training, "gradientAccumulationSteps": 2})
    assert_exact(*stopped_and_resumed(tmp_path, planned, 3, dropout=0.1))
