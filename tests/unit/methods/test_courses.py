"""What methods do while they train: layers join and leave, matrices freeze, ranks are pruned, parts learn at their own rates; all exact over a resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune_api.wire import Activity
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.state import digest
from finetune_trainer.engine.groups import split_groups
from finetune_trainer.errors import Stopped
from finetune_trainer.methods.aflora import Freezing
from finetune_trainer.methods.base import Length, Setting
from finetune_trainer.methods.gradual import Schedule
from finetune_trainer.methods.oft import rotations
from finetune_trainer.methods.registry import method_of
from finetune_trainer.modeling.base import Plain
from finetune_trainer.modeling.start import Head, Start
from tests.unit.engine import stage_run
from tests.unit.engine.tiny_models import model

STEPS = 12


def planned(kind: str, **options: Any) -> Any:
    block = {kind: options} if options else {}
    return stage_run.stage({"maxSteps": STEPS, "learningRate": 1e-2}, method={"type": kind, **block}, checkpoint={"everySteps": 4})


def wrapped(stage: Any, seed: int = 3) -> nn.Module:
    """The method on the tiny LLaMA of the engine's tests."""
    plain = Plain(model("llama"), Head.CAUSAL, frozenset())
    return method_of(stage.method.type).apply(
        Setting(plain, stage, "spec.stages[0]", Start.base(Path()), tokenizer=stage_run.tokenizer(), seed=seed)
    )


@pytest.mark.parametrize(
    ("direction", "layers", "frozen"),
    [
        # After each number of steps: the depths that stand still. 0 are the embeddings, 1 and 2 the layers, 3 what is above them.
        ("unfreezing", 1, {0: {0, 1}, 2: {0}, 4: set(), 9: set()}),
        ("unfreezing", 2, {0: {0, 1}, 2: set()}),
        ("freezing", 1, {0: set(), 2: {0}, 4: {0, 1}, 9: {0, 1}}),
    ],
)
def test_a_schedule_freezes_by_depth(direction: str, layers: int, frozen: dict[int, set[int]]) -> None:
    stage = planned("gradual", direction=direction, everySteps=2, layers=layers)
    module = wrapped(stage)
    course = Schedule(module, stage, Length(STEPS, 5))
    for step, wanted in frozen.items():
        course.begin(step)
        still = {course._depths[name] for name, parameter in module.named_parameters() if not parameter.requires_grad}
        assert still == wanted, f"after {step} steps"
    course.end()
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_a_layer_changes_exactly_while_it_is_trained(tmp_path: Path) -> None:
    stage = planned("gradual", everySteps=4)
    seen: dict[int, dict[str, str]] = {}
    net: list[nn.Module] = []

    def look(activity: Activity, fields: dict[str, Any]) -> None:
        if activity is Activity.TRAIN and fields.get("done"):
            parts = {"low": "layers.0.mlp.up_proj.weight", "top": "layers.1.mlp.up_proj.weight", "embeddings": "embed_tokens.weight"}
            own = dict(net[0].named_parameters())
            seen[fields["done"]] = {
                part: digest({"": next(own[name] for name in own if name.endswith(end))}) for part, end in parts.items()
            }

    stage_run.train(tmp_path, stage, prepare=net.append, on_report=look)
    first = {part: next(step for step in range(2, STEPS + 1) if seen[step][part] != seen[step - 1][part]) for part in seen[1]}
    assert first == {"top": 2, "low": 5, "embeddings": 9}, "of the steps from the second on"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gradual", {"everySteps": 4}),
        ("gradual", {"everySteps": 5, "direction": "freezing"}),
        ("aflora", {"r": 4, "initialSteps": 2, "finalShare": 0.1}),
        ("adalora", {"initR": 6, "targetR": 3, "interval": 2, "finalShare": 0.2}),
        ("lora", {"r": 4, "loraPlusRatio": 8, "dropout": 0.1}),
        ("full", {"layerDecay": 0.5}),
        ("full", {"weights": "bf16", "groups": [{"parameters": ["*embed*"], "learningRateFactor": 0.5, "weightDecay": 0.1}]}),
        ("promptTuning", {"numVirtualTokens": 4}),
        ("adapter", {"size": 4, "dropout": 0.1}),
        ("oft", {"blockSize": 8}),
        ("vera", {"r": 8}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("stop_after", [7])
def test_a_stopped_stage_ends_in_the_same_bytes(kind: str, options: dict[str, Any], stop_after: int, tmp_path: Path) -> None:
    stage = planned(kind, **options)

    def run(name: str, stop: StopFlag | None = None, look: Callable[[Activity, dict[str, Any]], None] | None = None) -> dict[str, str]:
        module = wrapped(stage)
        outcome = stage_run.train(tmp_path / name, stage, net=module, stop=stop, on_report=look)
        return {"weights": digest(dict(module.named_parameters())), "course": str(outcome.outcome.resolved.get("course"))}

    stop = StopFlag()

    def look(activity: Activity, fields: dict[str, Any]) -> None:
        if activity is Activity.TRAIN and fields.get("done") == stop_after:
            stop.request("SIGTERM")

    undisturbed = run("undisturbed")
    with pytest.raises(Stopped):
        run("stopped", stop, look)
    torch.manual_seed(99)
    assert run("stopped") == undisturbed


@pytest.mark.parametrize(
    ("kind", "options"),
    [("aflora", {"r": 4, "initialSteps": 2, "finalShare": 0.1}), ("adalora", {"initR": 6, "targetR": 3, "interval": 2, "finalShare": 0.2})],
)
def test_without_what_a_course_remembers_it_would_end_otherwise(kind: str, options: dict[str, Any]) -> None:
    """The control of the test above: a course that begins anew in the middle decides otherwise."""
    stage = planned(kind, **options)
    whole, anew = (
        (module, method_of(stage.method.type).course(module, stage, Length(STEPS, 10))) for module in (wrapped(stage), wrapped(stage))
    )
    decided = []
    for module, course in (whole, anew):
        generator = torch.Generator().manual_seed(0)
        for step in range(1, STEPS + 1):
            for parameter in module.parameters():
                parameter.grad = torch.rand(parameter.shape, generator=generator) / step if parameter.requires_grad else None
            if step == 8 and module is anew[0]:
                course = method_of(stage.method.type).course(module, stage, Length(STEPS, 10))
                if kind == "adalora":
                    module.base_model.rankallocator.reset_ipt()
            course.before_update(step)
            course.after_update(step)
        decided.append(course.summary())
    assert decided[0] != decided[1]


def test_matrices_freeze_in_the_order_of_their_scores_on_a_cubic_schedule(tmp_path: Path) -> None:
    stage = planned("aflora", r=4, initialSteps=20, finalShare=0.2)
    module = wrapped(stage)
    course = Freezing(module, stage, Length(100, 50))
    assert [round(course.share(step), 3) for step in (0, 19, 20, 35, 50, 80, 100)] == [0, 0, 0, 0.578, 0.875, 1, 1]
    names = list(course._matrices)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 101):
        for number, name in enumerate(names):
            matrix = course._matrices[name]
            # The later a matrix stands, the more its gradient is and varies.
            matrix.grad = (number + 1) * torch.rand(matrix.shape, generator=generator) if matrix.requires_grad else None
        course.before_update(step)
        course.after_update(step)
    order = [name.removesuffix(".parametrizations.weight.original").removeprefix("base_model.model.") for name in names]
    assert course.summary()["frozen"] == order
    after = course.summary()["frozenAfter"]
    assert after == sorted(after) and (after[0], after[-1]) == (21, 80)
    assert [sum(step <= at for step in after) for at in (20, 35, 50, 80)] == [int(course.share(at) * 28) for at in (20, 35, 50, 80)]
    told = course.told()
    assert told["frozen"] == "28 of 28 matrices, by their scores, after steps 21 to 80"
    assert told["frozen first"].startswith(f"{order[0]}, {order[1]}, ") and told["frozen last"].endswith(order[-1])
    course._frozen = dict(list(course._frozen.items())[:4])
    assert all(course.told().values()) and "frozen last" not in course.told(), "all four are the first"
    assert not any(matrix.requires_grad for matrix in course._matrices.values())
    vectors = [parameter for name, parameter in module.named_parameters() if name.endswith(".vector")]
    assert all(vector.requires_grad for vector in vectors), "the vectors are always trained"
    course.end()
    assert all(matrix.requires_grad for matrix in course._matrices.values())


def test_ranks_are_pruned_to_the_budget(tmp_path: Path) -> None:
    stage = planned("adalora", initR=6, targetR=3, interval=2, finalShare=0.2)
    module = wrapped(stage)
    outcome = stage_run.train(tmp_path, stage, net=module).outcome
    ranks = outcome.resolved["course"]["ranks"]
    assert sum(ranks.values()) == 3 * len(ranks)
    assert len(set(ranks.values())) > 1, "they moved to where they matter"
    kept = {name: int(parameter.count_nonzero()) for name, parameter in module.named_parameters() if ".lora_E." in name}
    assert sorted(kept.values()) == sorted(ranks.values())
    assert outcome.resolved["told"]["ranks kept"].endswith(f"in {len(ranks)} modules, 3 on average")


def test_parts_of_a_group_learn_at_their_factors() -> None:
    first, second, third = (nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = torch.optim.AdamW([{"params": [first, second], "weight_decay": 0.1}, {"params": [third], "weight_decay": 0.0}], lr=0.01)
    split_groups(optimizer, {id(first): 0.5, id(third): 4.0}, {}, set())
    found = [([id(parameter) for parameter in group["params"]], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [([id(second)], 0.01, 0.1), ([id(third)], 0.04, 0.0), ([id(first)], 0.005, 0.1)], (
        "what has the declared rate comes first"
    )


def test_parts_of_a_group_decay_as_they_shall() -> None:
    """What never decays (a bias, a norm) does not begin to."""
    first, second, bias = (nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = torch.optim.AdamW([{"params": [first, second], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}], lr=0.01)
    split_groups(optimizer, {}, {id(first): 0.5, id(bias): 0.5}, {id(first), id(second)})
    found = [([id(parameter) for parameter in group["params"]], group["weight_decay"]) for group in optimizer.param_groups]
    assert found == [([id(first)], 0.5), ([id(second)], 0.1), ([id(bias)], 0.0)]


def test_constrained_rotations_are_taken_back_by_steps_alone() -> None:
    stage = planned("oft", blockSize=8, coft=True, epsilon=1e-3)
    module = wrapped(stage)
    course = method_of(stage.method.type).course(module, stage, Length(STEPS, 5))  # type: ignore[misc]
    with torch.no_grad():
        for rotation in rotations(module):
            rotation.weight += 0.5
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    module(input_ids=torch.arange(4, 20)[None])
    assert all(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters()), "a forward pass changes nothing"
    course.after_update(1)
    for rotation in rotations(module):
        blocks = rotation._pytorch_skew_symmetric(rotation.weight, rotation.block_size)
        assert (torch.linalg.matrix_norm(blocks) <= 1.001e-3 / len(blocks) ** 0.5).all()
    assert module.peft_config["default"].coft  # type: ignore[index, union-attr]
