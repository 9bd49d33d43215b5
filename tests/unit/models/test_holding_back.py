"""A share of a stage's change is handed over: both ends exactly, the middle in the middle, and the best of them on validation rows."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finetune_api.v1alpha1.objective import Objective
from finetune_api.v1alpha1.stage import HandOver
from finetune_trainer import handover, holding_back, outcome
from finetune_trainer.arms import RESOLVED
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.engine.stage import make_collator
from finetune_trainer.engine.validation import Aborted
from finetune_trainer.handing_over import handed_over
from finetune_trainer.modeling.plain import plain_weights
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Head, Start
from finetune_trainer.tokenizer import load_tokenizer
from tests.unit.engine.tiny_models import FakeRows
from tests.unit.models.cases import CAUSAL, CLASSES, build, job, logits, train

FULL = job(("full", CAUSAL, None))


def ended(
    folder: Path, method: str, kind: str, before: Start | None = None, *, objective: str = CAUSAL, added: tuple[str, ...] = ()
) -> tuple[StageModel, Start]:
    model = train(build(before or Start.base(folder), job((method, objective, None), added=added), 0))
    return model, handover.hand_over(model, HandOver(kind))


def weights(start: Start, objective: str = CAUSAL, added: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    return plain_weights(build(start, job(("full", objective, None), added=added), 0).module)


@pytest.mark.parametrize(
    ("method", "kind"),
    [("full", "continue"), ("partial", "continue"), ("lora", "merge"), ("dora", "merge"), ("pissa", "merge")],
)
def test_a_share_lies_between_what_was_there_and_what_was_learned(untied_llama: Path, method: str, kind: str) -> None:
    model, start = ended(untied_llama, method, kind)
    before = holding_back.weights_before(model)
    none, half, whole = (holding_back.scaled(start, model, before, share) for share in (0.0, 0.5, 1.0))
    base, learned = weights(Start.base(untied_llama)), weights(start)
    assert none.weights == {}, "nothing is left of the stage, so nothing is handed over"
    assert none.heads == {}
    assert all(torch.equal(base[name], tensor) for name, tensor in weights(none).items())
    assert whole is start
    middle = weights(half)
    assert any(not torch.equal(middle[name], base[name]) for name in middle)
    for name, tensor in middle.items():
        assert torch.allclose(tensor, (base[name].double() + (learned[name].double() - base[name].double()) / 2).float(), atol=1e-7), name


def test_of_the_whole_change_nothing_has_to_be_known_that_was_there_before(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, start = ended(tiny_llama, "full", "continue")
    model.stage = model.stage.model_copy(update={"hand_over": HandOver.CONTINUE, "hand_over_scale": 1.0})
    (tmp_path / RESOLVED).write_text('{"metrics": {"loss": 3.0}}')
    work: Any = SimpleNamespace(epoch=SimpleNamespace(stage_folder=lambda key: tmp_path, files=FileLayer()))
    monkeypatch.setattr(holding_back, "weights_before", None)
    found = handed_over(work, "0-stage0", model)
    assert all(torch.equal(start.weights[name], tensor) for name, tensor in found.weights.items())
    assert json.loads((tmp_path / RESOLVED).read_text())["metrics"] == {"loss": 3.0, outcome.SCALE: 1.0}


def test_the_share_is_of_this_stage_alone(tiny_llama: Path) -> None:
    _, first = ended(tiny_llama, "full", "continue")
    model, second = ended(tiny_llama, "lora", "merge", first)
    none = holding_back.scaled(second, model, holding_back.weights_before(model), 0.0)
    assert all(torch.equal(tensor, weights(first)[name]) for name, tensor in weights(none).items())


def test_a_merged_stack_goes_back_to_the_stack_under_it(tiny_llama: Path) -> None:
    model, first = ended(tiny_llama, "lora", "stack")
    above, merged = ended(tiny_llama, "lora", "merge", first)
    none = holding_back.scaled(merged, above, holding_back.weights_before(above), 0.0)
    assert torch.allclose(logits(model), logits(build(none, FULL, 0)), atol=1e-5)


def test_what_had_no_meaning_before_is_handed_over_as_it_was_trained(tiny_llama: Path, tiny_bert: Path) -> None:
    """A new head and the rows of added tokens."""
    model, start = ended(tiny_bert, "full", "continue", objective=CLASSES)
    none = holding_back.scaled(start, model, holding_back.weights_before(model), 0.0)
    assert set(none.weights) == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}, "which a language model lacks"
    assert torch.equal(none.heads[Head.CLASSIFICATION]["classifier.weight"], start.heads[Head.CLASSIFICATION]["classifier.weight"])
    added = ("<ticket>",)
    model, start = ended(tiny_llama, "full", "continue", added=added)
    none = holding_back.scaled(start, model, holding_back.weights_before(model), 0.0)
    (name,) = none.weights
    rows = list(model.added)
    assert torch.equal(none.weights[name][rows], start.weights[name][rows])
    assert torch.equal(none.weights[name][:1024], weights(Start.base(tiny_llama))[name][:1024])


def losses(folder: Path, model: StageModel, start: Start, stop: bool = False, objective: str = CAUSAL) -> dict[float, float]:
    spec = job(("full", CAUSAL, "continue"), ("full", objective, None), perDeviceTrainBatchSize=2)
    tokenizer = load_tokenizer(folder, spec)
    return holding_back.shares_on_validation(
        start,
        model,
        holding_back.weights_before(model),
        spec.stages[1],
        FakeRows([9, 5, 7]),
        make_collator(Objective(objective), tokenizer, seed=1),
        tokenizer=tokenizer,
        device=torch.device("cpu"),
        should_stop=lambda: stop,
        on_share=lambda done: None,
    )


def test_the_share_with_the_lowest_loss_is_chosen(tiny_llama: Path) -> None:
    model, start = ended(tiny_llama, "full", "continue")
    found = losses(tiny_llama, model, start)
    assert list(found) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert found == losses(tiny_llama, model, start), "chosen again, it is chosen the same"
    assert len(set(found.values())) == 5
    assert found[holding_back.best(found)] == min(found.values())


@pytest.mark.parametrize(
    ("found", "share"),
    [
        ({1.0: 2.0, 0.5: 1.0, 0.0: 3.0}, 0.5),
        ({1.0: 2.0, 0.5: 2.0, 0.0: 3.0}, 1.0),
        ({1.0: float("nan"), 0.5: float("inf"), 0.0: 3.0}, 0.0),
    ],
    ids=["the lowest", "of equal ones the largest", "a number before none"],
)
def test_best(found: dict[float, float], share: float) -> None:
    assert holding_back.best(found) == share


def test_a_signal_ends_the_choice(tiny_llama: Path) -> None:
    with pytest.raises(Aborted):
        losses(tiny_llama, *ended(tiny_llama, "lora", "merge"), stop=True)
