"""What each method trains, and what it says where there is nothing of what the manifest names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.constants import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.modeling.start import Start
from tests.unit.models.cases import CAUSAL, CLASSES, MASKED, build, job, lora, outputs, train


def endings(names: list[str]) -> set[str]:
    """What a trained parameter is: lora_A, score.weight, …"""
    marks = (
        "lora_A",
        "lora_B",
        "lora_magnitude_vector",
        "score.modules_to_save",
        "classifier.modules_to_save",
        "pooler.modules_to_save",
        "rows",
    )
    return {next((mark for mark in marks if mark in name), name) for name in names}


@pytest.mark.parametrize(
    ("method", "objective", "trained"),
    [
        ("lora", CAUSAL, {"lora_A", "lora_B"}),
        ("dora", CAUSAL, {"lora_A", "lora_B", "lora_magnitude_vector"}),
        ("pissa", CAUSAL, {"lora_A", "lora_B"}),
        ("lora", CLASSES, {"lora_A", "lora_B", "score.modules_to_save"}),
        ("headOnly", CLASSES, {"score.weight"}),
    ],
)
def test_a_llama_trains(tiny_llama: Path, method: str, objective: str, trained: set[str]) -> None:
    model = build(Start.base(tiny_llama), job((method, objective, None)), 0)
    assert endings(model.trainable_names()) == trained
    assert {parameter.dtype for parameter in model.module.parameters() if parameter.requires_grad} == {torch.float32}


@pytest.mark.parametrize(
    ("method", "objective", "trained"),
    [
        # The checkpoint is a masked language model's, so a classifier's pooler is made anew and must be trained.
        ("lora", CLASSES, {"lora_A", "lora_B", "classifier.modules_to_save", "pooler.modules_to_save"}),
        ("headOnly", CLASSES, {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"}),
        ("lora", MASKED, {"lora_A", "lora_B"}),
    ],
)
def test_a_bert_trains(tiny_bert: Path, method: str, objective: str, trained: set[str]) -> None:
    assert endings(build(Start.base(tiny_bert), job((method, objective, None)), 0).trainable_names()) == trained


def test_head_only_trains_the_transform_of_a_masked_head_but_not_the_tied_projection(tiny_bert: Path) -> None:
    names = build(Start.base(tiny_bert), job(("headOnly", MASKED, None)), 0).trainable_names()
    assert all(name.startswith("cls.predictions.") for name in names)
    assert not any("decoder.weight" in name for name in names)


def test_head_only_trains_an_untied_projection(untied_llama: Path) -> None:
    assert build(Start.base(untied_llama), job(("headOnly", CAUSAL, None)), 0).trainable_names() == ["lm_head.weight"]


def test_full_trains_everything_once(tiny_llama: Path) -> None:
    model = build(Start.base(tiny_llama), job(("full", CAUSAL, None)), 0)
    assert sum(parameter.numel() for parameter in model.module.parameters()) == model.summary()["trainedParameters"]
    assert "lm_head.weight" not in model.trainable_names()  # tied: the embeddings stand for it


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({"trained": ["model.layers.1.*"]}, lambda name: name.startswith("model.layers.1.")),
        ({"frozen": ["*embed*", "*norm*"]}, lambda name: "embed" not in name and "norm" not in name),
    ],
    ids=["trained", "frozen"],
)
def test_partial_trains_what_the_patterns_say(tiny_llama: Path, options: dict[str, Any], trained: Any) -> None:
    model = build(Start.base(tiny_llama), job(({"type": "partial", "partial": options}, CAUSAL, None)), 0)
    names = [name for name, _ in model.module.named_parameters()]
    assert model.trainable_names() == [name for name in names if trained(name)]
    assert 0 < len(model.trainable_names()) < len(names)


@pytest.mark.parametrize(
    ("method", "objective", "where", "words"),
    [
        ({"type": "headOnly"}, CAUSAL, "spec.stages[0].method.type", "tied to its embeddings"),
        (
            lora(targetModules=["q_projj"]),
            CAUSAL,
            "spec.stages[0].method.lora.targetModules",
            "there are q_proj, k_proj, o_proj, v_proj, up_proj",
        ),
        (lora(targetModules=["lm_head"]), CAUSAL, "spec.stages[0].method.lora.targetModules", "no linear module of this model's backbone"),
        (
            {"type": "partial", "partial": {"trained": ["model.layer.*"]}},
            CAUSAL,
            "spec.stages[0].method.partial.trained",
            "'model.layer.*' matches no parameter; near it are model.",
        ),
        ({"type": "partial", "partial": {"frozen": ["*"]}}, CAUSAL, "spec.stages[0].method.partial", "nothing would be trained"),
        (
            {"type": "partial", "partial": {"trained": ["model.layers.1.*"]}},
            CLASSES,
            "spec.stages[0].method.partial",
            "add 'score.*' to `trained`",
        ),
    ],
    ids=["tied head", "misspelt module", "head as target", "idle pattern", "all frozen", "new head frozen"],
)
def test_what_trains_nothing_is_refused(tiny_llama: Path, method: dict[str, Any], objective: str, where: str, words: str) -> None:
    with pytest.raises(TrainerError) as caught:
        build(Start.base(tiny_llama), job((method, objective, None)), 0)
    assert caught.value.reason is Reason.INVALID_SPEC
    assert caught.value.where == where
    assert words in str(caught.value)


@pytest.mark.parametrize("base", ["tiny_llama", "untied_llama", "tiny_bert"])
@pytest.mark.parametrize("method", ["lora", "headOnly", "partial", "full"])
def test_rows_of_added_tokens_are_trained_by_every_method(base: str, method: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(base)
    objective = CLASSES if method == "headOnly" else MASKED if base == "tiny_bert" else CAUSAL
    model = build(Start.base(folder), job((method, objective, None), added=["<ticket>", "<order>"]), 0)
    inner = model.module.get_base_model() if hasattr(model.module, "get_base_model") else model.module
    before = inner.get_input_embeddings().weight.detach().clone()
    ids = torch.tensor([[5, *model.added, 9]])
    said, read = outputs(model.module, ids).logits, before[list(model.added)]
    train(model)
    after = inner.get_input_embeddings().weight.detach()
    assert before.shape[0] == 1026
    assert not torch.equal(after[list(model.added)], read)
    assert torch.equal(after[:1024], before[:1024]) is (method != "full")
    assert not torch.equal(outputs(model.module, ids).logits, said)
    if objective is not CLASSES and base != "untied_llama":
        assert torch.equal(inner.get_output_embeddings().weight, inner.get_input_embeddings().weight)


def test_wrapping_the_rows_changes_nothing(tiny_bert: Path) -> None:
    """A projection that is tied to the embeddings has a bias in BERT, which must not be lost."""
    start = Start.base(tiny_bert)
    whole = build(start, job(("full", MASKED, None), added=["<ticket>"]), 0)
    rows = build(start, job(("lora", MASKED, None), added=["<ticket>"]), 0)
    assert torch.equal(outputs(whole.module).logits, outputs(rows.module).logits)


def test_the_callers_random_state_is_left_alone_and_the_seed_decides(tiny_llama: Path) -> None:
    spec, start = job(("lora", CLASSES, None)), Start.base(tiny_llama)
    torch.manual_seed(5)
    one = build(start, spec, 0, seed=3).trainable_state()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    torch.manual_seed(6)
    same, other = build(start, spec, 0, seed=3).trainable_state(), build(start, spec, 0, seed=4).trainable_state()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", ["full", "lora", "dora", "pissa", "headOnly"])
def test_a_trainable_state_restores_the_module(tiny_llama: Path, method: str) -> None:
    spec, start = job((method, CLASSES, None)), Start.base(tiny_llama)
    trained = train(build(start, spec, 0))
    state = {name: tensor.clone() for name, tensor in trained.trainable_state().items()}
    again = build(start, spec, 0)
    again.load_trainable_state(state)
    assert torch.equal(outputs(trained.module).logits, outputs(again.module).logits)


def test_a_state_of_another_structure_is_refused(tiny_llama: Path) -> None:
    start = Start.base(tiny_llama)
    state = build(start, job(("dora", CAUSAL, None)), 0).trainable_state()
    with pytest.raises(TrainerError, match="other trained weights") as caught:
        build(start, job(("lora", CAUSAL, None)), 0).load_trainable_state(state)
    assert caught.value.reason is Reason.CHECKPOINT_INVALID


def test_pissa_restores_the_base_under_another_decomposition(tiny_llama: Path) -> None:
    """Signs of singular vectors differ between machines: the residual under a restored adapter must be the one it was trained on."""
    spec, start = job(("pissa", CAUSAL, None)), Start.base(tiny_llama)
    trained = train(build(start, spec, 0))
    wanted = outputs(trained.module).logits
    state = dict(trained.trainable_state())
    foreign = build(start, spec, 0)
    name = "model.layers.0.mlp.up_proj"
    kept = {side: foreign.taken[f"{name}.{side}"].clone() for side in "AB"}
    # As another machine might have it: the last singular vector is another one.
    layer = dict(foreign.module.get_base_model().named_modules())[name]  # type: ignore[operator]
    changed = {"A": kept["A"] * torch.tensor([[1.0], [1.0], [1.0], [1.1]]), "B": kept["B"]}
    with torch.no_grad():
        layer.base_layer.weight += layer.scaling["default"] * (kept["B"] @ kept["A"] - changed["B"] @ changed["A"])
    foreign.taken |= {f"{name}.{side}": tensor for side, tensor in changed.items()}
    foreign.load_trainable_state(state)
    assert float((outputs(foreign.module).logits - wanted).abs().max() / wanted.abs().max()) < 1e-5
