"""Hand-over on real tensors: what a stage starts from is, to the logit, what the one before it ended with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from finetune_api.constants import Reason
from finetune_api.v1alpha1.stage import HandOver
from finetune_trainer import handover
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.errors import TrainerError
from finetune_trainer.modeling.start import Head, Start
from tests.unit.models.cases import CAUSAL, CLASSES, LABELS, MASKED, apart, build, job, logits, outputs, train

EXACT = 0.0
FP32 = 1e-5
"""An order of magnitude below the 1e-4 of the largest logit that is promised."""

PLAIN = ("full", "headOnly", "partial")
LOW_RANK = ("lora", "rsLora", "dora", "pissa", "gaussian", "pissaDora")
PAIRS = [
    *[(first, second, "continue") for first in PLAIN for second in (*PLAIN, "lora", "pissa")],
    *[(method, method, "continue") for method in LOW_RANK],
    *[(first, second, "merge") for first in LOW_RANK for second in ("full", "headOnly", "lora", "pissa")],
    *[(first, second, "stack") for first in LOW_RANK for second in LOW_RANK],
]


@pytest.mark.parametrize(("first", "second", "kind"), PAIRS)
def test_the_next_stage_starts_where_this_one_ended(untied_llama: Path, first: str, second: str, kind: str) -> None:
    spec = job((first, CAUSAL, kind), (second, CAUSAL, None))
    ended = build(Start.base(untied_llama), spec, 0)
    began = logits(ended)
    wanted = logits(train(ended))
    start = handover.hand_over(ended, HandOver(kind))
    following = build(start, spec, 1)
    assert apart(wanted, began) > 0.01, "nothing was trained, so nothing was tested"
    assert torch.equal(logits(ended), wanted), "handing over changed the model that was handed over"
    exact = kind == "continue" and second != "pissa"
    assert apart(wanted, logits(following)) <= (EXACT if exact else FP32)
    train(following)
    if second in LOW_RANK:
        merged = build(handover.hand_over(following, HandOver.MERGE), job(("full", CAUSAL, None)), 0)
        assert apart(logits(following), logits(merged)) < FP32


@pytest.mark.parametrize(
    ("base", "first", "second", "methods", "kind"),
    [
        (base, first, second, methods, kind)
        for base, first, second in [
            ("tiny_llama", CAUSAL, CLASSES),
            ("tiny_llama", CLASSES, CAUSAL),
            ("tiny_bert", MASKED, CLASSES),
            ("tiny_bert", CLASSES, MASKED),
            ("tiny_bert", CLASSES, CLASSES),
        ]
        for methods, kind in [
            (("full", "lora"), "continue"),
            (("lora", "lora"), "continue"),
            (("pissa", "full"), "merge"),
            (("lora", "dora"), "stack"),
        ]
    ],
)
@pytest.mark.parametrize("added", [(), ("<ticket>",)], ids=["", "added token"])
def test_a_change_of_objective_carries_the_backbone(
    base: str, first: str, second: str, methods: tuple[str, str], kind: str, added: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    spec = job((methods[0], first, kind), (methods[1], second, None), added=added)
    ended = train(build(Start.base(request.getfixturevalue(base)), spec, 0))
    following = build(handover.hand_over(ended, HandOver(kind)), spec, 1)
    one, other = outputs(ended.module), outputs(following.module)
    assert apart(one.hidden_states[-1], other.hidden_states[-1]) < FP32
    if first == second:
        assert apart(one.logits, other.logits) < FP32
    elif second == CLASSES:
        assert other.logits.shape == (2, len(LABELS))


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("method", ["lora", "rsLora", "dora", "pissa"])
def test_a_stack_trains_its_last_adapter_only_and_merges_exactly(tiny_llama: Path, method: str, depth: int) -> None:
    spec = job(*[(method, CAUSAL, "stack" if index < depth - 1 else None) for index in range(depth)])
    start = Start.base(tiny_llama)
    for index in range(depth):
        model = train(build(start, spec, index), seed=index)
        assert isinstance(model.module, PeftModel)
        trained = model.trainable_names()
        assert all(".default." in name for name in trained)
        assert len(trained) == len(build(Start.base(tiny_llama), spec, 0).trainable_names())
        if index < depth - 1:
            start = handover.hand_over(model, HandOver.STACK)
    if method in ("lora", "rsLora", "dora"):
        assert model.module.base_model.active_adapters == [*[f"frozen{index}" for index in range(depth - 1)], "default"]
    merged = build(handover.hand_over(model, HandOver.MERGE), job(("full", CAUSAL, None)), 0)
    assert apart(logits(model), logits(merged)) < FP32


def test_a_stack_keeps_what_is_under_it_frozen(tiny_llama: Path) -> None:
    spec = job(("lora", CAUSAL, "stack"), ("lora", CAUSAL, None))
    start = handover.hand_over(train(build(Start.base(tiny_llama), spec, 0)), HandOver.STACK)
    model = build(start, spec, 1)
    frozen = {name: tensor.clone() for name, tensor in model.module.state_dict().items() if ".frozen0." in name}
    ids = torch.arange(4, 36).reshape(2, 16)
    model.module.train()
    model.module(input_ids=ids, labels=ids).loss.backward()
    torch.optim.SGD([parameter for parameter in model.module.parameters() if parameter.requires_grad], lr=1.0).step()
    state = model.module.state_dict()
    assert len(frozen) == 28
    assert all(torch.equal(state[name], tensor) for name, tensor in frozen.items())
    assert apart(logits(model), logits(build(start, spec, 1))) > 1e-3
    dropouts = [part for name, part in model.module.named_modules() if name.endswith("lora_dropout.frozen0")]
    assert dropouts
    assert all(isinstance(part, torch.nn.Identity) for part in dropouts), "a frozen adapter must not add noise"


@pytest.mark.parametrize(
    ("stages", "kind"),
    [
        ([("full", CAUSAL, "continue"), ("lora", CAUSAL, None)], "continue"),
        ([("lora", CAUSAL, "continue"), ("lora", CAUSAL, None)], "continue"),
        ([("pissa", CAUSAL, "continue"), ("pissa", CAUSAL, None)], "continue"),
        ([("dora", CLASSES, "stack"), ("lora", CLASSES, None)], "stack"),
        ([("lora", CLASSES, "merge"), ("full", CAUSAL, None)], "merge"),
    ],
    ids=["weights", "trained adapter", "pissa", "stack with a head", "archived head"],
)
def test_a_hand_over_survives_its_files(tiny_llama: Path, tmp_path: Path, stages: list[tuple[str, str, str | None]], kind: str) -> None:
    spec = job(*stages)
    start = handover.hand_over(train(build(Start.base(tiny_llama), spec, 0)), HandOver(kind))
    for name, chunks in handover.snapshot(start).files():
        FileLayer().write_file(tmp_path / name, chunks)
    again = handover.read(tmp_path, model=tiny_llama)
    assert again.describe() == start.describe()
    one, other = build(start, spec, 1), build(again, spec, 1)
    assert torch.equal(logits(one), logits(other))
    assert one.trainable_names() == other.trainable_names()


def test_a_head_is_archived_and_used_again(tiny_bert: Path) -> None:
    spec = job(("full", MASKED, "continue"), ("lora", CLASSES, "merge"), ("full", MASKED, "continue"), ("headOnly", CLASSES, None))
    first = train(build(Start.base(tiny_bert), spec, 0))
    start = handover.hand_over(first, HandOver.CONTINUE)
    second = train(build(start, spec, 1))
    assert second.summary()["archivedHeads"] == ["masked"]
    start = handover.hand_over(second, HandOver.MERGE)
    third = build(start, spec, 2)
    bias = "cls.predictions.transform.dense.bias"
    assert torch.equal(dict(third.module.named_parameters())[bias], dict(first.module.named_parameters())[bias])
    assert set(start.heads) == {Head.MASKED, Head.CLASSIFICATION}
    fourth = build(handover.hand_over(third, HandOver.CONTINUE), spec, 3)
    assert apart(logits(second), logits(fourth)) < FP32


@pytest.mark.parametrize("labels", [["plant", "animal", "stone"], ["animal", "plant"]], ids=["another order", "another number"])
def test_a_head_for_other_labels_is_made_anew(tiny_bert: Path, labels: list[str]) -> None:
    spec = job(("headOnly", CLASSES, "continue"), ("headOnly", CLASSES, None))
    first = train(build(Start.base(tiny_bert), spec, 0))
    second = build(handover.hand_over(first, HandOver.CONTINUE), spec, 1, labels=labels)
    assert "classifier.weight" in second.new
    assert second.module.config.id2label == dict(enumerate(labels))
    assert float(second.module.classifier.weight.detach().abs().max()) < 0.2
    rows = min(len(labels), len(LABELS))
    assert not torch.equal(first.module.classifier.weight[:rows], second.module.classifier.weight[:rows])


@pytest.mark.parametrize(("method", "kind"), [("full", "merge"), ("headOnly", "stack"), ("partial", "merge")])
def test_an_illegal_hand_over_names_the_legal_one(untied_llama: Path, method: str, kind: str) -> None:
    model = build(Start.base(untied_llama), job((method, CAUSAL, None)), 0)
    with pytest.raises(TrainerError, match="use continue") as caught:
        handover.hand_over(model, HandOver(kind))
    assert caught.value.reason is Reason.HAND_OVER_ILLEGAL


def test_what_was_only_for_training_is_not_handed_over(tiny_llama: Path) -> None:
    """A LoRA stage that is continued hands over its adapter, not the base: nothing of the base's size is written."""
    start = handover.hand_over(train(build(Start.base(tiny_llama), job(("lora", CAUSAL, None)), 0)), HandOver.CONTINUE)
    assert dataclasses.asdict(start)["weights"] == {}
    assert start.trained is not None
    assert all("lora_" in name for name in start.trained)
