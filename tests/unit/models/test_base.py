"""Which base models are loaded, and as what."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.constants import Reason
from finetune_trainer.engine.precision import Precision
from finetune_trainer.errors import TrainerError
from finetune_trainer.modeling.base import load_plain
from finetune_trainer.modeling.stage_model import build_stage_model
from finetune_trainer.modeling.start import Head, Start
from finetune_trainer.tokenizer import load_tokenizer
from tests.unit.models.cases import CAUSAL, CLASSES, LABELS, MASKED, build, job


def edited(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def with_code(folder: Path) -> None:
    edited(folder, auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})


def with_a_gap(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def of_another_size(folder: Path) -> None:
    edited(folder, intermediate_size=96)


def of_an_unknown_kind(folder: Path) -> None:
    edited(folder, model_type="llamba")


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "reason", "words"),
    [
        (pickled, Reason.MODEL_UNSAFE, "pickle"),
        (without_weights, Reason.MODEL_UNSUPPORTED, "no weights"),
        (with_code, Reason.MODEL_UNSAFE, "auto_map"),
        (with_a_gap, Reason.MODEL_UNSUPPORTED, "lack 1 tensors that its architecture needs (model.layers.1.mlp.up_proj.weight"),
        (of_another_size, Reason.MODEL_UNSUPPORTED, "can't load"),
        (of_an_unknown_kind, Reason.MODEL_UNSUPPORTED, "llamba"),
        (cut_short, Reason.MODEL_UNSUPPORTED, "is cut off or damaged"),
    ],
)
def test_a_model_that_cannot_or_must_not_be_loaded(
    tiny_llama: Path, tmp_path: Path, damage: Callable[[Path], None], reason: Reason, words: str
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    damage(folder)
    with pytest.raises(TrainerError) as caught:
        load_plain(Start.base(folder), Head.CAUSAL)
    assert caught.value.reason is reason
    assert caught.value.where == "spec.model.uri"
    assert words in str(caught.value)


def test_a_head_that_the_architecture_does_not_have(tiny_llama: Path) -> None:
    with pytest.raises(TrainerError, match="masked head") as caught:
        load_plain(Start.base(tiny_llama), Head.MASKED)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


@pytest.mark.parametrize(
    ("base", "head", "new"),
    [
        ("tiny_llama", Head.CAUSAL, []),
        ("tiny_llama", Head.CLASSIFICATION, ["score.weight"]),
        ("tiny_bert", Head.MASKED, []),
        ("tiny_bert", Head.CLASSIFICATION, ["bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight"]),
    ],
)
def test_what_is_made_from_the_seed(base: str, head: Head, new: list[str], request: pytest.FixtureRequest) -> None:
    start = Start.base(request.getfixturevalue(base))
    labels = LABELS if head is Head.CLASSIFICATION else None
    one, same, other = (load_plain(start, head, labels=labels, seed=seed) for seed in (1, 1, 2))
    assert sorted(one.new) == new
    weights = [dict(plain.model.named_parameters()) for plain in (one, same, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    differing = {name for name in weights[0] if not torch.equal(weights[0][name], weights[2][name])}
    assert differing == {name for name in new if name.endswith(".weight")}


def test_a_classifiers_own_head_is_kept_for_its_own_labels_only(tiny_bert: Path, tmp_path: Path) -> None:
    classifier = load_plain(Start.base(tiny_bert), Head.CLASSIFICATION, labels=LABELS, seed=1).model
    classifier.save_pretrained(tmp_path / "classifier")
    shutil.copyfile(tiny_bert / "tokenizer.json", tmp_path / "classifier/tokenizer.json")
    start = Start.base(tmp_path / "classifier")
    kept = load_plain(start, Head.CLASSIFICATION, labels=LABELS, seed=2)
    assert not kept.new
    assert torch.equal(kept.model.classifier.weight, classifier.classifier.weight)
    for labels in (LABELS[::-1], [*LABELS, "mineral"]):
        renewed = load_plain(start, Head.CLASSIFICATION, labels=labels, seed=2)
        assert renewed.new == {"classifier.weight", "classifier.bias"}
        assert not torch.equal(renewed.model.classifier.weight[:3], classifier.classifier.weight)


def test_a_classifier_knows_its_labels_and_its_pad_token(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    edited(folder, pad_token_id=None)
    config = build(Start.base(folder), job(("lora", CLASSES, None)), 0).module.config  # type: ignore[union-attr]
    assert config.id2label == dict(enumerate(LABELS))
    assert config.label2id == {label: index for index, label in enumerate(LABELS)}
    assert config.pad_token_id == 3
    assert config.use_cache is False


@pytest.mark.parametrize("objective", [CLASSES, MASKED])
def test_an_encoders_pad_token_stays_its_own(tiny_bert: Path, tmp_path: Path, objective: str) -> None:
    """RoBERTa counts positions from it, so that another one would be another model."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    edited(folder, pad_token_id=7)
    assert build(Start.base(folder), job(("lora", objective, None)), 0).module.config.pad_token_id == 7  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("method", "frozen", "trained", "rest"),
    [
        ("full", torch.float32, {torch.float32}, set()),
        ("lora", torch.float32, {torch.float32}, {torch.float32}),
        ("lora", torch.bfloat16, {torch.float32}, {torch.bfloat16}),
        ("headOnly", torch.bfloat16, {torch.float32}, {torch.bfloat16}),
        # What PiSSA takes out of the base must be out of it to the last bit.
        ("pissa", torch.bfloat16, {torch.float32}, {torch.float32}),
    ],
)
def test_a_bf16_checkpoint(
    tiny_llama: Path, tmp_path: Path, method: str, frozen: torch.dtype, trained: set[torch.dtype], rest: set[torch.dtype]
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edited(folder, dtype="bfloat16")
    spec = job((method, CLASSES, None))
    model = build_stage_model(
        start=Start.base(folder),
        stage=spec.stages[0],
        spec=spec,
        labels=LABELS,
        tokenizer=load_tokenizer(folder, spec),
        precision=Precision(torch.float32, frozen, None),
        seed=1,
    )
    types = [(parameter.dtype, parameter.requires_grad) for parameter in model.module.parameters()]
    assert {dtype for dtype, grad in types if grad} == trained
    assert {dtype for dtype, grad in types if not grad} == rest


@pytest.mark.parametrize(("base", "objective", "names"), [("tiny_bert", MASKED, 3), ("tiny_llama", CAUSAL, 1)])
def test_dropout_is_the_models_own_or_the_manifests(base: str, objective: str, names: int, request: pytest.FixtureRequest) -> None:
    start = Start.base(request.getfixturevalue(base))
    changed = build(start, job(("full", objective, None), dropout=0.25), 0).module
    values = [value for name, value in changed.config.to_dict().items() if "dropout" in name and value == 0.25]  # type: ignore[union-attr, operator]
    assert len(values) == names
    ids = torch.arange(4, 36).reshape(2, 16)
    changed.train()
    assert not torch.equal(changed(input_ids=ids).logits, changed(input_ids=ids).logits)
    own = build(start, job(("full", objective, None)), 0).module.config.to_dict()  # type: ignore[union-attr, operator]
    assert not any(value == 0.25 for value in own.values())
