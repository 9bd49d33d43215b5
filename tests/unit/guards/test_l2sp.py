"""L2-SP (arXiv 1802.01483): strength / 2 · ‖W − W⁰‖², W⁰ the base or the stage's start, ΔW under an adapter."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.v1alpha1.regularization import Anchor, Guard
from finetune_trainer.errors import TrainerError
from finetune_trainer.guards.anchored import guard_problems
from finetune_trainer.guards.change import changes, factors
from finetune_trainer.guards.registry import GUARDS
from finetune_trainer.handover import hand_over
from finetune_trainer.methods.stacks import lora_layers
from finetune_trainer.modeling.plain import plain_weights
from finetune_trainer.modeling.start import Start
from finetune_trainer.tokenizer import load_tokenizer
from tests.unit.engine.stage_run import train as train_tiny
from tests.unit.engine.tiny_models import model
from tests.unit.guards.runs import assert_exact, guarded, moved, stopped_and_resumed, trainable
from tests.unit.models.cases import CAUSAL, CLASSES, build, job, train

STRENGTH = 0.3
CASES = {
    "full": (("full", CAUSAL, None),),
    "partial": (("partial", CAUSAL, None),),
    "lora": (("lora", CAUSAL, None),),
    "rsLora": (("rsLora", CAUSAL, None),),
    "dora": (("dora", CAUSAL, None),),
    "pissa": (("pissa", CAUSAL, None),),
    "a head over a backbone": (("full", CLASSES, None),),
    "full after full": (("full", CAUSAL, "continue"), ("full", CAUSAL, None)),
    "lora that trains on": (("lora", CAUSAL, "continue"), ("lora", CAUSAL, None)),
    "lora on a merged one": (("lora", CAUSAL, "merge"), ("lora", CAUSAL, None)),
    "lora on a stack": (("lora", CAUSAL, "stack"), ("gaussian", CAUSAL, None)),
    "dora on a stack": (("lora", CAUSAL, "stack"), ("dora", CAUSAL, None)),
}


@pytest.mark.parametrize("anchor", Anchor)
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_the_penalty_on_the_effective_weights(case: str, anchor: Anchor, tiny_llama: Path) -> None:
    """Against finite differences of ½ · strength · ‖W − W⁰‖² over the weights as they are published, along random directions."""
    spec, start = job(*CASES[case]), Start.base(tiny_llama)
    for index in range(len(CASES[case]) - 1):
        start = hand_over(train(build(start, spec, index)), spec.stages[index].hand_over)  # type: ignore[arg-type]
    model = build(start, spec, len(CASES[case]) - 1)
    anchored = plain_weights(build(Start.base(tiny_llama) if anchor is Anchor.BASE else start, spec, len(CASES[case]) - 1).module)
    held = changes(model, anchor, tokenizer=load_tokenizer(tiny_llama, spec), where="here")
    train(model, seed=2, scale=0.05)
    names = {change.name for change in held}

    def penalty() -> float:
        now = plain_weights(model.module)
        return sum(float((now[name] - anchored[name]).double().square().sum()) for name in names) * STRENGTH / 2

    with torch.no_grad():
        value = float(sum(change.pull_square(STRENGTH, 1.0) for change in held))
    assert value == pytest.approx(penalty(), rel=1e-4)
    assert value > 0
    parameters = trainable(model.module)
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        steps = {name: torch.randn(parameter.shape, generator=generator) * 1e-3 for name, parameter in parameters.items()}
        along = sum(float((parameters[name].grad * step).sum()) for name, step in steps.items() if parameters[name].grad is not None)
        ends = []
        for sign in (1, -2):
            with torch.no_grad():
                for name, step in steps.items():
                    parameters[name] += sign * step
            ends.append(penalty())
        with torch.no_grad():
            for name, step in steps.items():
                parameters[name] += step
        assert along == pytest.approx((ends[0] - ends[1]) / 2, rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("method", ["full", "lora", "dora"])
def test_a_pull_on_the_difference_gives_the_same_gradient_as_the_square(method: str, tiny_llama: Path) -> None:
    spec = job((method, CAUSAL, None))
    model = build(Start.base(tiny_llama), spec, 0)
    held = changes(model, Anchor.BASE, tokenizer=load_tokenizer(tiny_llama, spec), where="here")
    train(model, seed=2)
    found = []
    for square in (True, False):
        for change in held:
            with torch.no_grad():
                if square:
                    change.pull_square(STRENGTH, 2.0)
                else:
                    change.pull(change.difference() * STRENGTH * 2.0)
        found.append({name: parameter.grad.clone() for name, parameter in trainable(model.module).items() if parameter.grad is not None})
        model.module.zero_grad()
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], rtol=1e-4, atol=1e-7) for name in found[0])


def test_under_an_adapter_only_the_product_counts(tiny_llama: Path) -> None:
    spec = job(("lora", CAUSAL, None))
    model = build(Start.base(tiny_llama), spec, 0)
    held = changes(model, Anchor.BASE, tokenizer=load_tokenizer(tiny_llama, spec), where="here")
    train(model)
    values = []
    for _ in range(2):
        with torch.no_grad():
            values.append(float(sum(change.pull_square(STRENGTH, 1.0) for change in held)))
            for layer in lora_layers(model.module).values():
                a, b = factors(layer)
                a *= 8
                b /= 8
    assert values[0] == pytest.approx(values[1], rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_at_large_strength_the_weights_stay_at_the_anchor(kind: str, tmp_path: Path) -> None:
    """With plain SGD at rate · strength = 1 each step goes all the way back, less what the task pulls."""
    free = train_tiny(tmp_path / "free", guarded(), kind=kind)
    weak = train_tiny(tmp_path / "weak", guarded({"type": "l2sp", "strength": 1.0}), kind=kind)
    strong = train_tiny(tmp_path / "strong", guarded({"type": "l2sp", "strength": 1000}, training={"learningRate": 1e-3}), kind=kind)
    assert moved(strong, kind) < 0.01 * moved(free, kind)
    assert moved(strong, kind) < moved(weak, kind) < moved(free, kind)


@pytest.mark.parametrize("guard", [{"type": "l2sp", "strength": 1.0}, {"type": "mixout", "probability": 0.5}], ids=["l2sp", "mixout"])
def test_what_a_schedule_has_frozen_is_left_alone(guard: dict[str, object], tmp_path: Path) -> None:
    """Layer by layer from the top: a gradient of zero would let the optimizer decay what has not joined yet."""
    training = {"optimizer": "adamw", "learningRate": 1e-2, "weightDecay": 0.5, "maxSteps": 4}
    planned = guarded(guard, training=training, method={"type": "gradual", "gradual": {"everySteps": 3}})
    start, trained = dict(model("llama").named_parameters()), train_tiny(tmp_path, planned).model
    moved = {name for name, parameter in trained.named_parameters() if not torch.equal(parameter, start[name])}
    assert any(".layers.0." in name for name in moved) and any(".layers.1." in name for name in moved)
    assert not any("embed" in name for name in moved), "they would join after step 6"


def test_the_penalty_is_told_apart_from_the_loss(tmp_path: Path) -> None:
    held = train_tiny(tmp_path / "held", guarded({"type": "l2sp", "strength": 1.0}))
    free = train_tiny(tmp_path / "free", guarded())
    assert held.curve[0]["loss"] == free.curve[0]["loss"], "the loss of a step is the task's"
    assert held.curve[0]["guards"] == {"l2sp": 0.0}
    assert held.curve[-1]["guards"]["l2sp"] > 0
    assert "guards" not in free.curve[-1]
    assert held.outcome.metrics["guard_l2sp"] == held.curve[-1]["guards"]["l2sp"]
    assert held.outcome.resolved["guards"]["l2sp"]["strength"] == 1.0


def test_accumulation_adds_the_penalty_once(tmp_path: Path) -> None:
    guard = {"type": "l2sp", "strength": 2.0}
    one = train_tiny(tmp_path / "one", guarded(guard, training={"perDeviceTrainBatchSize": 8, "maxSteps": 3}))
    eight = {"perDeviceTrainBatchSize": 1, "gradientAccumulationSteps": 8, "maxSteps": 3}
    many = train_tiny(tmp_path / "many", guarded(guard, training=eight))
    assert one.curve[-1]["guards"]["l2sp"] == pytest.approx(many.curve[-1]["guards"]["l2sp"], rel=1e-4)


@pytest.mark.parametrize("kind", ["llama", "lora"])
def test_a_stage_that_was_stopped_ends_in_the_same_bytes(kind: str, tmp_path: Path) -> None:
    planned = guarded({"type": "l2sp", "strength": 0.5, "anchor": "stageStart"}, training={"optimizer": "adamw", "learningRate": 1e-3})
    resumed, undisturbed = stopped_and_resumed(tmp_path, planned, 3, kind=kind, dropout=0.2)
    assert_exact(resumed, undisturbed)
    assert undisturbed.weights != train_tiny(tmp_path / "free", guarded(training={"optimizer": "adamw", "learningRate": 1e-3}), kind=kind, dropout=0.2).weights  # fmt: skip


def test_a_new_head_alone_has_nothing_to_hold(tiny_llama: Path) -> None:
    spec = job(("headOnly", CLASSES, None))
    with pytest.raises(TrainerError, match="every weight that this stage trains is new: there is nothing to hold"):
        changes(build(Start.base(tiny_llama), spec, 0), Anchor.BASE, tokenizer=load_tokenizer(tiny_llama, spec), where="here")


NORMS = {"type": "partial", "partial": {"trained": ["*norm*"]}}
ALL_NEW = "every weight that this stage trains is new: there is nothing to hold"
NO_LINEAR = "this stage trains no linear layer that has an anchor"
L2SP, MIXOUT = {"type": "l2sp", "strength": 0.1}, {"type": "mixout", "probability": 0.1}


@pytest.mark.parametrize(
    ("stages", "guard", "found"),
    [
        ([("headOnly", CLASSES, None)], L2SP, [ALL_NEW]),
        ([("lora", CLASSES, "merge"), ("headOnly", CLASSES, None)], L2SP, [ALL_NEW]),
        ([("lora", CLASSES, "merge"), ("headOnly", CLASSES, None)], L2SP | {"anchor": "stageStart"}, []),
        ([({"type": "partial", "partial": {"lastLayers": 1}}, CLASSES, None)], L2SP, []),
        ([(NORMS, CAUSAL, None)], L2SP, []),
        ([(NORMS, CAUSAL, None)], MIXOUT, [NO_LINEAR]),
        ([("full", CLASSES, None)], MIXOUT, []),
    ],
)
def test_a_guard_with_nothing_to_hold_is_refused_by_names_and_shapes(
    tiny_llama: Path, stages: list[Any], guard: dict[str, Any], found: list[str]
) -> None:
    spec = job(*stages)
    held = spec.stages[-1].model_copy(update={"regularization": [Guard.model_validate(guard)]})
    problems = [str(error) for error in guard_problems(tiny_llama, [*spec.stages[:-1], held])]
    assert problems == [f"spec.stages[{len(stages) - 1}].regularization[0].type: {words}; leave the guard out" for words in found]
    if len(stages) == 1:  # the built stage says the same
        options = Guard.model_validate(guard)
        made = GUARDS[options.type](options, build(Start.base(tiny_llama), spec, 0), tokenizer=None, seed=1, where="here")
        with pytest.raises(TrainerError, match=found[0]) if found else nullcontext():
            made.begin(None)  # type: ignore[arg-type]
