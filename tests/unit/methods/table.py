"""The table of the methods' tests: a size that fits the tiny models, and the property that defines a method, as a function of its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from finetune_api.v1alpha1.fine_tune_job import RULES_APART, FineTuneJobSpec
from finetune_api.v1alpha1.method import MethodType
from finetune_api.v1alpha1.objective import Objective
from finetune_trainer.methods.registry import method_of
from finetune_trainer.modeling.few_bits import dense, is_quantised
from finetune_trainer.modeling.plain import inner_model, plain_weights
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Start
from finetune_trainer.tokenizer import load_tokenizer
from tests.unit.models.cases import CAUSAL, apart, build, job, logits, train

SMALL: Final[dict[MethodType, dict[str, Any]]] = {
    MethodType.GRADUAL: {"everySteps": 2},
    MethodType.PARTIAL: {"frozen": ["*.0.*"]},
    MethodType.LORA: {"r": 4},
    MethodType.QLORA: {"r": 4},
    MethodType.ADALORA: {"initR": 6, "targetR": 3, "interval": 2},
    MethodType.LOHA: {"r": 4},
    MethodType.LOKR: {"r": 4},
    MethodType.VERA: {"r": 16},
    MethodType.OFT: {"blockSize": 8},
    MethodType.HRA: {"r": 4},
    MethodType.FOURIERFT: {"nFrequency": 50},
    MethodType.C3A: {"blockSize": 16},
    MethodType.GRALORA: {"r": 8, "k": 2},
    MethodType.AFLORA: {"r": 4},
    MethodType.ADAPTER: {"place": "houlsby", "size": 8},
    MethodType.PROMPT_TUNING: {"numVirtualTokens": 6, "initialization": "text", "text": "a small beetle"},
    MethodType.PREFIX_TUNING: {"numVirtualTokens": 6},
    MethodType.P_TUNING: {"numVirtualTokens": 6},
    MethodType.TRAINABLE_TOKENS: {"tokens": ["a", "e"]},
}
"""What the tests write where nothing else is said; the other methods are as they are by default."""


def method(kind: MethodType | str, **options: Any) -> dict[str, Any]:
    """A manifest's method, with its small options or with these."""
    kind = MethodType(kind)
    chosen = options or SMALL.get(kind, {})
    return {"type": str(kind), **({str(kind): chosen} if chosen else {})}


def spec(*stages: tuple[dict[str, Any], Objective, str | None], **training: Any) -> FineTuneJobSpec:
    """A spec of (method, objective, hand-over) stages; the rules of the manifest are not asked, since refused cells are tried too."""
    document = {
        "model": {"uri": "file://base"},
        "stages": [
            {
                "name": f"stage{index}",
                "objective": str(objective),
                "data": {"train": [{"uri": "file://rows.jsonl"}]},
                "method": method,
                "training": {"maxSteps": 20, **training},
                **({"handOver": hand_over} if hand_over else {}),
            }
            for index, (method, objective, hand_over) in enumerate(stages)
        ],
    }
    return FineTuneJobSpec.model_validate(document, context=RULES_APART)


def built(folder: Path, method: dict[str, Any], objective: Objective = Objective.SUPERVISED) -> StageModel:
    """The model of one stage."""
    return build(Start.base(folder), spec((method, objective, None)), 0)


UP: Final = "model.layers.0.mlp.up_proj"
Q: Final = "model.layers.0.self_attn.q_proj"


def base(llama: Path) -> StageModel:
    return built(llama, method("full"))


def begins_at_the_base(llama: Path, model: StageModel) -> None:
    assert apart(logits(base(llama)), logits(model)) < 1e-5


def update(llama: Path, model: StageModel, name: str = UP) -> torch.Tensor:
    """What training changed in a weight, (outputs, inputs)."""
    return plain_weights(model.module)[f"{name}.weight"] - plain_weights(base(llama).module)[f"{name}.weight"]


def layer(model: StageModel, name: str = UP) -> Any:
    return inner_model(model.module).get_submodule(name)


def rank(matrix: torch.Tensor) -> int:
    values = torch.linalg.svdvals(matrix.double())
    return int((values > 1e-3 * values[0]).sum())  # an update is a difference of weights, rounded as these are


def full(llama: Path) -> None:
    """Each layer learns at a share of the rate of the one above it, a group at a factor of that and with a decay of its own."""
    groups = [{"parameters": ["*.1.*.q_proj.*"], "learningRateFactor": 3, "weightDecay": 0.1}]
    model = built(llama, method("full", layerDecay=0.5, groups=groups))
    rates, decays = (of(model.module, model.stage) for of in (method_of(MethodType.FULL).rates, method_of(MethodType.FULL).decays))
    assert rates["model.layers.1.self_attn.q_proj.weight"] == 1.5
    assert decays == {"model.layers.1.self_attn.q_proj.weight": 0.1}
    assert rates["model.norm.weight"] == 1.0
    assert rates[f"{UP}.weight"] == 0.25
    assert rates["model.layers.1.mlp.up_proj.weight"] == 0.5
    assert rates["model.embed_tokens.weight"] == 0.125


def gradual(llama: Path) -> None:
    """All that is ever trained has its place in the optimizer from the start."""
    assert len(built(llama, method("gradual")).trainable_names()) == len(base(llama).trainable_names())


def partial(llama: Path) -> None:
    """By name, by depth and by share: what is not chosen stands still, and all of it is named."""
    above = {name for name, _ in base(llama).module.named_parameters() if ".1." in name} | {"model.norm.weight"}
    for options in ({"frozen": ["*.0.*", "*embed*"]}, {"lastLayers": 1}, {"share": 0.35}):
        model = train(built(llama, method("partial", **options)))
        assert set(model.trainable_names()) == above
        assert model.trains().endswith(" parameters (26.5 %): layer 1, model.norm.weight")
        assert not update(llama, model).any()
        assert update(llama, model, "model.layers.1.mlp.up_proj").any()


def head_only(llama: Path) -> None:
    model = build(Start.base(llama), job(("headOnly", "classification", None)), 0)
    assert model.trainable_names() == ["score.weight"]


def lora(llama: Path) -> None:
    """The update has the module's rank, and its scale the module's alpha."""
    model = built(llama, method("lora", r=4, alpha=8, rankPattern={"up_proj": 7}, alphaPattern={"up_proj": 14}, layersToTransform=[0]))
    begins_at_the_base(llama, model)
    train(model)
    assert rank(update(llama, model)) == 7
    assert rank(update(llama, model, Q)) == 4
    assert not update(llama, model, "model.layers.1.mlp.up_proj").any()
    a, b = (side["default"].weight.detach() for side in (layer(model).lora_A, layer(model).lora_B))
    assert torch.allclose(update(llama, model), 2 * b @ a, atol=1e-6)


def qlora(llama: Path) -> None:
    """The blocks' linear layers are in few bits, what is trained in fp32; and it computes what LoRA would on the weights that these stand for."""
    for quantization, most in (("nf4", 0.75), ("int8", 1.1), ("torchaoInt8", 1.1)):
        model = train(built(llama, method("qlora", r=4, quantization=quantization)))
        assert {parameter.dtype for parameter in model.module.parameters() if parameter.requires_grad} == {torch.float32}
        blocks = {name: part for name, part in model.module.named_modules() if name.endswith(".base_layer")}
        assert len(blocks) == 14
        assert all(is_quantised(part.weight) for part in blocks.values())
        shown = model.summary()
        assert shown["quantizedLayers"] == 14
        assert shown["quantizedBytes"] < most * shown["quantizedBytesInFp32"] / 4  # a layer of 64 × 64 has hardly more weights than tables
        same = built(llama, method("lora", r=4))
        for name, part in same.module.named_modules():
            if name in blocks:
                part.weight.data.copy_(dense(blocks[name]))
        same.load_trainable_state(model.trainable_state())
        assert apart(logits(same), logits(model)) < (1e-5 if quantization != "int8" else 5e-2)  # LLM.int8 rounds the inputs too


def adalora(llama: Path) -> None:
    begins_at_the_base(llama, built(llama, method("adalora")))
    assert rank(update(llama, train(built(llama, method("adalora"))))) == 6


def loha(llama: Path) -> None:
    """The rank of a Hadamard product is more than that of its factors."""
    model = built(llama, method("loha", r=4))
    begins_at_the_base(llama, model)
    assert rank(update(llama, train(model))) > 4


def lokr(llama: Path) -> None:
    """A Kronecker product, its blocks put in rows, is of rank one."""
    model = built(llama, method("lokr", r=4, decomposeFactor=8))
    begins_at_the_base(llama, model)
    change = update(llama, train(model))
    left = layer(model).lokr_w1["default"].shape
    rows, columns = change.shape[0] // left[0], change.shape[1] // left[1]
    blocks = change.reshape(left[0], rows, left[1], columns).permute(0, 2, 1, 3).reshape(left[0] * left[1], rows * columns)
    assert rank(blocks) == 1


def vera(llama: Path) -> None:
    """All modules share two frozen matrices; two vectors a module are trained."""
    model = built(llama, method("vera"))
    begins_at_the_base(llama, model)
    assert {name.split(".")[-2] for name in model.trainable_names()} == {"vera_lambda_b", "vera_lambda_d"}
    assert layer(model).vera_A["default"] is layer(model, Q).vera_A["default"]


def orthogonal(kind: str, llama: Path) -> None:
    """A rotation of the inputs keeps the length of each row of the weight."""
    model = built(llama, method(kind))
    begins_at_the_base(llama, model)
    change = update(llama, train(model))
    before = plain_weights(base(llama).module)[f"{UP}.weight"]
    assert change.abs().max() > 1e-3
    assert torch.allclose(before.norm(dim=1), (before + change).norm(dim=1), rtol=1e-4)


def oft(llama: Path) -> None:
    orthogonal("oft", llama)


def hra(llama: Path) -> None:
    orthogonal("hra", llama)


def boft(llama: Path) -> None:
    """A rotation, and a scale for each output: rows keep the ratio of their lengths to these scales."""
    model = built(llama, method("boft"))
    begins_at_the_base(llama, model)
    change = update(llama, train(model))
    before = plain_weights(base(llama).module)[f"{UP}.weight"]
    scale = layer(model).boft_s["default"].detach().flatten().abs()
    assert torch.allclose((before + change).norm(dim=1), scale * before.norm(dim=1), rtol=1e-4)


def fourierft(llama: Path) -> None:
    """The update has no more frequencies than are trained."""
    begins_at_the_base(llama, built(llama, method("fourierft", nFrequency=50)))
    model = train(built(llama, method("fourierft", nFrequency=50)))
    spectrum = torch.fft.fft2(update(llama, model).double())
    # What is trained is a coefficient of the complex transform; of its real part each appears twice.
    assert int((spectrum.abs() > 1e-4 * spectrum.abs().max()).sum()) <= 100


def c3a(llama: Path) -> None:
    """Each block of the update is circulant: its rows are the first one, turned. Together they have full rank."""
    model = built(llama, method("c3a", blockSize=16))
    begins_at_the_base(llama, model)
    change = update(llama, train(model, scale=1.0))
    assert rank(change) == min(change.shape)
    for block in change.unfold(0, 16, 16).unfold(1, 16, 16).flatten(0, 1):
        assert all(torch.allclose(block[row], block[0].roll(row), atol=1e-6) for row in range(16))


def gralora(llama: Path) -> None:
    """Each of the k × k blocks has an update of its own, of rank r / k: together they have a rank above r."""
    model = built(llama, method("gralora", r=8, k=2))
    begins_at_the_base(llama, model)
    change = update(llama, train(model))
    rows, columns = change.shape[0] // 2, change.shape[1] // 2
    blocks = [change[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns] for i in range(2) for j in range(2)]
    assert [rank(block) for block in blocks] == [4, 4, 4, 4]
    assert rank(change) > 8


def aflora(llama: Path) -> None:
    """ΔW = Λb·B·Λd·A, from the base, and published as a plain LoRA of the same rank."""
    model = built(llama, method("aflora", r=4, initialD=0.3))
    begins_at_the_base(llama, model)
    a, b = (side["default"].parametrizations.weight for side in (layer(model).lora_A, layer(model).lora_B))
    assert a[0].vector.tolist() == pytest.approx([0.3] * 4)
    assert not b[0].vector.any()
    assert b.original.any(), "both matrices are Kaiming's; the vector alone is zero"
    train(model)
    wanted = torch.diag(b[0].vector) @ b.original @ torch.diag(a[0].vector) @ a.original
    assert torch.allclose(update(llama, model), wanted.detach(), atol=1e-6)


def adapter(llama: Path) -> None:
    """Every place begins as the identity, and only the bottlenecks are trained."""
    for place, count in (("pfeiffer", 2), ("houlsby", 4), ("parallel", 2)):
        model = built(llama, method("adapter", place=place, size=8))
        assert torch.equal(logits(base(llama)), logits(model))
        assert len(model.trainable_names()) == 4 * count


def ia3(llama: Path) -> None:
    """Keys and values are scaled where they come out, the feed-forward layer where it goes in."""
    model = built(llama, method("ia3"))
    begins_at_the_base(llama, model)
    shapes = {name.split(".")[-3]: tuple(parameter.shape) for name, parameter in model.module.named_parameters() if parameter.requires_grad}
    assert shapes == {"k_proj": (32, 1), "v_proj": (32, 1), "down_proj": (1, 128)}


def ln_tuning(llama: Path) -> None:
    assert len(built(llama, method("lnTuning")).trainable_names()) == 5
    assert len(built(llama, method("lnTuning", targetModules=["input_layernorm"])).trainable_names()) == 2


def prompt_tuning(llama: Path) -> None:
    """The prompt begins with the text's embeddings, and stands in front: the model sees it as if it were written there."""
    model = built(llama, method("promptTuning", numVirtualTokens=6, initialization="text", text="a small beetle"))
    tokens = load_tokenizer(llama, spec((method("full"), CAUSAL, None)))("a small beetle", add_special_tokens=False)["input_ids"]
    written = (tokens * 6)[:6]
    ids = torch.arange(4, 20)[None]
    model.module.eval()
    with torch.no_grad():
        found = model.module(input_ids=ids).logits[:, 6:]
        wanted = base(llama).module.eval()(input_ids=torch.cat([torch.tensor([written]), ids], dim=1)).logits[:, 6:]
    assert apart(wanted, found) < 1e-5


def prefix_tuning(llama: Path) -> None:
    """Keys and values of every layer: two for each of the two key-value heads' sixteen dimensions."""
    model = built(llama, method("prefixTuning", numVirtualTokens=6))
    (name,) = model.trainable_names()
    assert dict(model.module.named_parameters())[name].shape == (6, 2 * 2 * 2 * 16)
    inner_model(model.module).activation_checkpointing_enable()
    with pytest.raises(RuntimeError, match="must match"):  # refused: what the prefix adds is lost
        model.module.train()(input_ids=torch.arange(4, 20)[None], attention_mask=torch.ones(1, 16, dtype=torch.int64))


def p_tuning(llama: Path) -> None:
    """What is trained is the network that makes the prompt, not the model."""
    assert all(name.startswith("prompt_encoder.default.") for name in built(llama, method("pTuning")).trainable_names())


def trainable_tokens(llama: Path) -> None:
    """The rows of the chosen tokens move, and no other."""
    model = built(llama, method("trainableTokens", tokens=["a", "e"]))
    before = plain_weights(model.module)["model.embed_tokens.weight"]
    train(model)
    moved = (plain_weights(model.module)["model.embed_tokens.weight"] != before).any(dim=1).nonzero().flatten().tolist()
    known = load_tokenizer(llama, spec((method("full"), CAUSAL, None))).get_vocab()
    assert moved == sorted([known["a"], known["e"]])


PROPERTIES: Final[dict[MethodType, Callable[[Path], None]]] = {kind: globals()[kind.attribute] for kind in MethodType}
