"""The loss-spike guard: what is a spike, what is done about it, and that a checkpoint knows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.regularization import Guard as Options
from finetune_api.wire import Activity
from finetune_trainer.checkpoint.snapshot import read_document
from finetune_trainer.checkpoint.state import read_course
from finetune_trainer.errors import TrainerError
from finetune_trainer.guards.loss_spike import LossSpike
from tests.unit.engine.stage_run import Trained
from tests.unit.engine.stage_run import train as train_tiny
from tests.unit.guards.runs import assert_exact, guarded, stopped_and_resumed
from tests.unit.methods.test_courses import wrapped

ROWS: Sequence[Sequence[str]] = [["a", "b"]]


def guard(**options: Any) -> LossSpike:
    declared = Options.model_validate({"type": "lossSpike", "action": "skip", **options})
    return LossSpike(declared, None, tokenizer=None, seed=0, where="here")  # type: ignore[arg-type]


def judged(spike_guard: LossSpike, losses: Sequence[float]) -> list[float]:
    return [spike_guard.judge(step, loss, ROWS) for step, loss in enumerate(losses, start=1)]


CALM = [2.0, 2.1, 1.9, 2.05, 1.95] * 3


@pytest.mark.parametrize(
    ("options", "losses", "shares"),
    [
        ({}, [*CALM, 9.0, 2.0], [*[1.0] * 15, 0.0, 1.0]),
        ({}, [*CALM, 2.3], [1.0] * 16),
        ({"deviations": 2}, [*CALM, 2.3], [*[1.0] * 15, 0.0]),
        ({}, [*CALM[:9], 9.0], [1.0] * 10),
        ({}, [*CALM, math.nan, math.inf, 2.0], [*[1.0] * 15, 0.0, 0.0, 1.0]),
        ({"action": "lower", "steps": 2, "factor": 0.5}, [*CALM, 9.0, 2.0, 2.0, 2.0], [*[1.0] * 15, 0.5, 0.5, 0.5, 1.0]),
        ({"action": "lower"}, [*CALM, math.nan], [1.0] * 16),
        ({"window": 10}, [*CALM, *([8.0] * 3), *CALM], [*[1.0] * 15, 0.0, 0.0, 0.0, *[1.0] * 15]),
        ({}, [1.0] * 20 + [1.02, 1.2], [*[1.0] * 21, 0.0]),
    ],
    ids=["skipped", "within the noise", "a finer sieve", "too few are known", "no number", "lowered for a while", "no rate helps", "spikes are no measure", "a flat loss"],
)  # fmt: skip
def test_what_is_left_of_the_rate(options: dict[str, Any], losses: list[float], shares: list[float]) -> None:
    assert judged(guard(**options), losses) == shares


def test_eleven_in_a_row_are_a_divergence() -> None:
    spike_guard = guard()
    judged(spike_guard, [*CALM, *[9.0] * 10])
    with pytest.raises(TrainerError, match="and so were the 10 steps before: this is no spike") as caught:
        spike_guard.judge(26, 9.0, ROWS)
    assert caught.value.reason is Reason.LOSS_DIVERGED


def test_what_it_remembers_goes_through_a_document() -> None:
    losses = [*CALM, 9.0, 2.0, 2.0, 11.0, 2.0]
    for options in ({}, {"action": "lower", "steps": 3}):
        whole, first, second = guard(**options), guard(**options), guard(**options)
        expected = judged(whole, losses)
        shares = [first.judge(step, loss, ROWS) for step, loss in enumerate(losses[:17], start=1)]
        second.load(first.document(), {})
        assert shares + [second.judge(step, loss, ROWS) for step, loss in enumerate(losses[17:], start=18)] == expected
        assert second.summary() == whole.summary()


TRAINING = {"learningRate": 0.1, "maxSteps": 16, "lrSchedulerType": "linear"}
SPIKE_AT = 13


def spiking(net: nn.Module) -> None:
    """The model's logits are scrambled in step 13: the loss jumps, and the gradients with it."""
    calls = {"n": 0}

    def scramble(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if module.training:
            calls["n"] += 1
        hit = module.training and calls["n"] == spiking.at  # type: ignore[attr-defined]
        return output * spiking.by if hit else output  # type: ignore[attr-defined]

    net.lm_head.register_forward_hook(scramble)  # type: ignore[union-attr]


def run(folder: Path, action: str | None, *, by: float = 40.0, **options: Any) -> Trained:
    spiking.at, spiking.by = SPIKE_AT, by  # type: ignore[attr-defined]
    guards = [{"type": "lossSpike", "action": action, "steps": 2}] if action == "lower" else [{"type": "lossSpike", "action": action}]
    return train_tiny(folder, guarded(*(guards if action else []), training=TRAINING), prepare=spiking, **options)


def test_a_spike_is_skipped_and_recorded(tmp_path: Path) -> None:
    said: list[str] = []

    def heard(activity: Activity, report: dict[str, Any]) -> None:
        said.append(report.get("message") or "")

    skipped = run(tmp_path / "skip", "skip", on_report=heard)
    free = run(tmp_path / "free", None)
    assert [point["loss"] for point in skipped.curve[:13]] == [point["loss"] for point in free.curve[:13]]
    assert skipped.curve[12]["loss"] > 1.5 * skipped.curve[11]["loss"], "it is shown"
    assert skipped.curve[13]["loss"] < free.curve[13]["loss"], "and it did no harm"
    assert skipped.curve[12]["learningRate"] == 0
    assert skipped.curve[13]["learningRate"] == free.curve[13]["learningRate"], "the schedule goes on"
    assert skipped.outcome.metrics["guard_lossSpike"] == 1
    assert [spike["step"] for spike in skipped.outcome.resolved["guards"]["lossSpike"]["steps"]] == [13]
    assert any("guard lossSpike: step 13: the loss of" in text and "its 4 rows are left out" in text for text in said)
    newest = sorted(skipped.folder.glob("checkpoint-*"))[-1]
    assert [spike["step"] for spike in read_document(newest, "progress")["extra"]["guards"]["lossSpike"]["spikes"]] == [13]


def test_a_loss_that_is_no_number_is_skipped_and_nothing_of_it_stays(tmp_path: Path) -> None:
    skipped = run(tmp_path / "skip", "skip", by=math.nan)
    assert (skipped.curve[12]["loss"], skipped.curve[12]["gradNorm"]) == (None, None)
    assert skipped.outcome.steps == 16
    assert skipped.outcome.resolved["guards"]["lossSpike"]["steps"] == [{"step": 13, "loss": "nan"}]
    assert all(math.isfinite(point["loss"]) for point in skipped.curve[13:])
    with pytest.raises(TrainerError, match="at step 13 the loss is nan"):
        run(tmp_path / "lower", "lower", by=math.nan)


def test_a_method_that_watches_gradients_sees_none_of_a_spike(tmp_path: Path) -> None:
    """AdaLoRA keeps averages of gradients: one that is no number would stay in them for good."""
    method = {"type": "adalora", "adalora": {"initR": 6, "targetR": 3, "interval": 2, "finalShare": 0.01}}
    training = {**TRAINING, "learningRate": 1e-3}
    planned = guarded({"type": "lossSpike", "action": "skip"}, training=training, method=method, checkpoint={"everySteps": 2})
    spiking.at, spiking.by = SPIKE_AT, math.nan  # type: ignore[attr-defined]
    skipped = train_tiny(tmp_path, planned, net=wrapped(planned), prepare=spiking)
    assert [spike["step"] for spike in skipped.outcome.resolved["guards"]["lossSpike"]["steps"]] == [13]
    averages = read_course(sorted(skipped.folder.glob("checkpoint-*"))[-2])  # at the end it keeps none
    assert averages and all(bool(tensor.isfinite().all()) for tensor in averages.values())


def test_a_spike_lowers_the_rate_for_a_while(tmp_path: Path) -> None:
    lowered, free = run(tmp_path / "lower", "lower"), run(tmp_path / "free", None)
    rates = [ours["learningRate"] / theirs["learningRate"] for ours, theirs in zip(lowered.curve[:15], free.curve[:15], strict=True)]
    assert rates == pytest.approx([*[1.0] * 12, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(("action", "step"), [("skip", 12), ("skip", 13), ("lower", 14)])
def test_a_stage_that_was_stopped_ends_in_the_same_bytes(action: str, step: int, tmp_path: Path) -> None:
    """A low threshold, so that real noise is a spike at some step: it depends on the losses that are remembered."""
    planned = guarded({"type": "lossSpike", "action": action, "deviations": 0.1, "window": 10}, training={**TRAINING, "learningRate": 1e-3})
    resumed, undisturbed = stopped_and_resumed(tmp_path, planned, step, dropout=0.2)
    assert undisturbed.outcome.metrics["guard_lossSpike"] > 0
    assert_exact(resumed, undisturbed)
