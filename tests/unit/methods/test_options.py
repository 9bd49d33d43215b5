"""Every option of every method does something: a stage that writes it ends in other weights than one that leaves it out, whatever the others are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from finetune_api.v1alpha1.method import TABLE, MethodType
from finetune_trainer.checkpoint.state import digest
from finetune_trainer.export import adapter, verify
from finetune_trainer.export.plain_model import write_model
from finetune_trainer.measuring import folded_model
from finetune_trainer.methods.oft import Constrained
from finetune_trainer.modeling.plain import plain_weights
from tests.unit.engine import stage_run
from tests.unit.methods.table import SMALL, built
from tests.unit.methods.test_courses import wrapped
from tests.unit.models.cases import train

PROBE: Final = verify.Probe.of_tokens([[5, 6, 7, 8, 9], [10, 11, 12]], pad=3)

LSTM: Final = {"encoderType": "LSTM"}
BASE: Final[dict[MethodType, dict[str, Any]]] = {
    **SMALL,
    MethodType.GRADUAL: {"everySteps": 1},
    MethodType.PARTIAL: {"lastLayers": 1},
    MethodType.ADALORA: {"initR": 6, "targetR": 3, "interval": 1, "finalShare": 0.2},
    MethodType.AFLORA: {"r": 4, "initialSteps": 2, "finalShare": 0},
    MethodType.ADAPTER: {"size": 8},
    MethodType.PROMPT_TUNING: {"numVirtualTokens": 4},
    MethodType.PREFIX_TUNING: {"numVirtualTokens": 4},
    MethodType.P_TUNING: {"numVirtualTokens": 4},
    MethodType.TRAINABLE_TOKENS: {"tokens": ["w7", "w8"]},
}
"""On a model of two layers × 32."""
OTHERS: Final[dict[MethodType, list[dict[str, Any]]]] = {
    MethodType.FULL: [
        {"weights": "bf16"},
        {"layerDecay": 0.5},
        {"groups": [{"parameters": ["*embed*"], "learningRateFactor": 0.1}]},
        {"groups": [{"parameters": ["*proj*"], "weightDecay": 0.9}]},
    ],
    MethodType.GRADUAL: [{"everySteps": 2}, {"everySteps": None, "everyEpochs": 0.5}, {"direction": "freezing"}, {"layers": 2}],
    MethodType.PARTIAL: [
        {"lastLayers": None, "trained": ["*q_proj*"]},
        {"lastLayers": None, "frozen": ["*norm*"]},
        {"lastLayers": None, "share": 0.9},
    ],
    MethodType.LORA: [
        {"targetModules": ["q_proj"]},
        {"r": 8},
        {"alpha": 4},
        {"dropout": 0.5},
        *({"initialization": start} for start in ("gaussian", "orthogonal", "olora", "pissa")),
        {"rsLora": True},
        {"dora": True},
        {"rankPattern": {"q_proj": 8}},
        {"alphaPattern": {"q_proj": 1}},
        {"loraPlusRatio": 16},
        {"layersToTransform": [1]},
        {"modulesToSave": ["lm_head"]},
    ],
    MethodType.QLORA: [
        {"targetModules": ["q_proj"]},
        {"quantization": "int8"},
        {"doubleQuantization": False},
        {"r": 8},
        {"alpha": 4},
        {"dropout": 0.5},
        *({"initialization": start} for start in ("gaussian", "orthogonal", "pissa")),
        {"rsLora": True},
        {"dora": True},
    ],
    MethodType.ADALORA: [
        {"targetModules": ["q_proj"]},
        {"initR": 8},
        {"targetR": 2},
        {"alpha": 4},
        {"dropout": 0.5},
        {"warmupShare": 0.5},
        {"finalShare": 0.6},
        {"interval": 3},
        {"orthogonality": 0},
    ],
    MethodType.LOHA: [{"targetModules": ["q_proj"]}, {"r": 2}, {"alpha": 2}, {"rankDropout": 0.5}, {"moduleDropout": 0.5}],
    MethodType.LOKR: [
        {"targetModules": ["q_proj"]},
        {"r": 2},
        {"alpha": 2},
        {"decomposeFactor": 2},
        {"decomposeBoth": True, "r": 1},
        {"rankDropout": 0.5},
        {"moduleDropout": 0.5},
    ],
    MethodType.VERA: [{"targetModules": ["q_proj"]}, {"r": 8}, {"dropout": 0.5}, {"initialD": 1.0}],
    MethodType.OFT: [
        {"targetModules": ["q_proj"]},
        {"blockSize": 4},
        {"blockShare": True},
        {"coft": True},
        {"coft": True, "epsilon": 0.01},
    ],
    MethodType.BOFT: [{"targetModules": ["q_proj"]}, {"blockSize": 8}, {"dropout": 0.5}],
    MethodType.HRA: [{"targetModules": ["q_proj"]}, {"r": 2}],
    MethodType.FOURIERFT: [{"targetModules": ["q_proj"]}, {"nFrequency": 20}, {"scaling": 10}],
    MethodType.C3A: [{"targetModules": ["q_proj"]}, {"blockSize": 8}],
    MethodType.GRALORA: [{"targetModules": ["q_proj"]}, {"r": 4}, {"k": 4}, {"alpha": 4}, {"dropout": 0.5}, {"hybridR": 2}],
    MethodType.AFLORA: [
        {"targetModules": ["q_proj"]},
        {"r": 2},
        {"dropout": 0.5},
        {"initialD": 1.0},
        {"initialSteps": 9},
        {"finalShare": 0.3},
    ],
    MethodType.ADAPTER: [
        *({"place": place} for place in ("houlsby", "parallel")),
        {"size": 4},
        *({"activation": activation} for activation in ("gelu", "silu", "tanh")),
        {"dropout": 0.5},
        {"scale": 3},
    ],
    MethodType.IA3: [{"targetModules": ["k_proj"]}, {"targetModules": ["k_proj"], "feedforwardModules": ["k_proj"]}],
    MethodType.LN_TUNING: [{"targetModules": ["input_layernorm"]}],
    MethodType.PROMPT_TUNING: [
        {"numVirtualTokens": 3},
        {"initialization": "vocabulary"},
        {"initialization": "text", "text": "w7"},
        {"initialization": "text", "text": "w8"},
    ],
    MethodType.PREFIX_TUNING: [
        {"numVirtualTokens": 3},
        {"prefixProjection": True},
        {"prefixProjection": True, "encoderHiddenSize": 8},
    ],
    MethodType.P_TUNING: [
        {"numVirtualTokens": 3},
        {"encoderHiddenSize": 8},
        LSTM,
        LSTM | {"encoderNumLayers": 3},
        LSTM | {"encoderDropout": 0.5},
    ],
    MethodType.TRAINABLE_TOKENS: [{"tokens": ["w7"]}],
}
"""Each a change of the base."""
ELSEWHERE: Final = {
    "lora": {"initializationRows", "rho", "cordaMode"},  # test_from_data.py
    "qlora": {"loftqIterations"},  # needs a GPU
}
UNTRIED: Final = {"eva", "corda", "loftq", "torchaoInt8"}
"""Values: the same, and test_quantised.py."""


def trained(folder: Path, kind: MethodType, options: dict[str, Any]) -> stage_run.Trained:
    """A short stage. AFLoRA's first scores come after ten steps."""
    block = {name: value for name, value in (BASE.get(kind, {}) | options).items() if value is not None}
    method = {"type": str(kind), **({str(kind): block} if block else {})}
    steps = 14 if kind is MethodType.AFLORA else 6
    planned = stage_run.stage({"maxSteps": steps, "learningRate": 1e-2, "warmupSteps": 0, "weightDecay": 0.01}, method=method)
    return stage_run.train(folder, planned, net=wrapped(planned), dropout=None)


def learned(run: stage_run.Trained) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in run.model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_written_changes_what_is_trained(kind: MethodType, tmp_path: Path) -> None:
    runs = {str(options): trained(tmp_path / str(number), kind, options) for number, options in enumerate([{}, *OTHERS[kind]])}
    ends = {options: digest(learned(run)) for options, run in runs.items()}
    alike = [(one, other) for one, other in itertools.combinations(ends, 2) if ends[one] == ends[other]]
    assert alike == []


@pytest.mark.parametrize("kind", MethodType)
def test_what_training_holds_is_as_large_as_what_is_trained(kind: MethodType, tmp_path: Path) -> None:
    """Weights, gradients and AdamW's two averages of four bytes each, and of each tensor a count of steps: nothing of what is frozen."""
    run = trained(tmp_path, kind, {})
    count, tensors = sum(parameter.numel() for parameter in learned(run).values()), len(learned(run))
    held = run.outcome.resolved["trainingBytes"]
    assert run.outcome.resolved["trainableParameters"] == count
    assert (held["weights"], held["gradients"]) == (4 * count, 4 * count)
    assert 8 * count * (kind is not MethodType.GRADUAL) <= held["optimizer"] <= 8 * count + 4 * tensors


PUBLISHED: Final[list[tuple[MethodType, dict[str, Any]]]] = [
    (MethodType.LORA, {"r": 4, "initialization": "olora", "rsLora": True, "alphaPattern": {"q_proj": 3}, "rankPattern": {"up_proj": 6}}),
    (MethodType.LORA, {"r": 4, "initialization": "gaussian", "dora": True, "layersToTransform": [1], "modulesToSave": ["lm_head"]}),
    (MethodType.QLORA, {"r": 4, "initialization": "pissa", "rsLora": True}),
    (MethodType.LOKR, {"r": 1, "decomposeBoth": True, "decomposeFactor": 4}),
    (MethodType.OFT, {"blockSize": 8, "blockShare": True, "coft": True, "epsilon": 0.01}),
    (MethodType.GRALORA, {"r": 8, "k": 2, "hybridR": 2}),
    (MethodType.ADAPTER, {"size": 8, "place": "parallel", "activation": "silu", "scale": 3}),
    (MethodType.ADAPTER, {"size": 8, "place": "pfeiffer", "activation": "tanh"}),
    (MethodType.IA3, {"targetModules": ["q_proj", "up_proj"], "feedforwardModules": ["up_proj"]}),
    (MethodType.PREFIX_TUNING, {"numVirtualTokens": 4, "prefixProjection": True, "encoderHiddenSize": 8}),
    (MethodType.P_TUNING, {"numVirtualTokens": 4, "encoderType": "LSTM", "encoderNumLayers": 1}),
]
"""Options that change the form of what is published."""


@pytest.mark.parametrize(("kind", "options"), PUBLISHED, ids=lambda value: " ".join(value) if isinstance(value, dict) else str(value))
def test_what_is_published_loads_as_what_was_trained(kind: MethodType, options: dict[str, Any], untied: Path, tmp_path: Path) -> None:
    model = train(built(untied, {"type": str(kind), str(kind): options}))
    if kind is MethodType.OFT:
        Constrained(model.module).after_update(1)  # as a stage has it done after each step
    wanted = PROBE.logits(folded_model(model, None) if TABLE[kind].quantizations else model.module)
    adapter.write_adapter(tmp_path, model, adapter.BaseReference(str(untied)), None)
    assert verify.apart(wanted, PROBE.logits(verify.load_adapter(tmp_path, untied, model))) < verify.TOLERANCE
    if TABLE[kind].folds:
        write_model(tmp_path / "merged", model, plain_weights(model.module), None)
        assert verify.apart(wanted, PROBE.logits(verify.load_merged(tmp_path / "merged", model.head))) < verify.TOLERANCE
    assert verify.apart(wanted, PROBE.logits(built(untied, {"type": "full"}).module)) > 10 * verify.TOLERANCE, "it was trained"


def test_no_option_is_left_out() -> None:
    """Nor a value of one that has a few."""
    assert {(kind, field, value) for kind in MethodType for field, value in declared(kind)} == {
        (kind, field, value) for kind in MethodType for field, value in tried(kind)
    }


def declared(kind: MethodType) -> Iterator[tuple[str, str]]:
    options = TABLE[kind].options
    for field in options.model_fields.values() if options is not None else ():
        name = str(field.alias)
        if name not in ELSEWHERE.get(str(kind), ()):
            yield name, ""
            yield from ((name, value) for value in values_of(field.annotation) if value not in {str(field.default), *UNTRIED})


def tried(kind: MethodType) -> Iterator[tuple[str, str]]:
    options = TABLE[kind].options
    fields = {str(field.alias): field for field in options.model_fields.values()} if options is not None else {}
    for one in OTHERS.get(kind, []):
        for name, value in one.items():
            yield name, ""
            if value is not None and values_of(fields[name].annotation) and value != str(fields[name].default):
                yield name, str(value)


def values_of(annotation: Any) -> list[str]:
    """Of an enum, perhaps one that may be left out."""
    every = [annotation, *getattr(annotation, "__args__", ())]
    return [str(value) for one in every if isinstance(one, type) and issubclass(one, StrEnum) for value in one]
