"""A base in few bits: what it takes, what an evaluation does to it, what comes out of it, and what is refused before it is made."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from finetune_api.constants import Reason
from finetune_api.v1alpha1.method import MethodType
from finetune_api.v1alpha1.methods.qlora import Quantization
from finetune_api.v1alpha1.objective import Objective
from finetune_trainer import backends
from finetune_trainer.backends import check_installed, needed
from finetune_trainer.engine.precision import Precision
from finetune_trainer.errors import TrainerError
from finetune_trainer.export import adapter, verify
from finetune_trainer.methods.base import Length
from finetune_trainer.methods.registry import method_of
from finetune_trainer.modeling.few_bits import dense, held_bytes, in_few_bits, packed
from finetune_trainer.modeling.plain import inner_model
from finetune_trainer.modeling.quantised import known
from finetune_trainer.modeling.sketch import machine_problems
from finetune_trainer.modeling.stage_model import StageModel, build_stage_model
from finetune_trainer.modeling.start import Start
from finetune_trainer.publish import compared
from finetune_trainer.recipe import on_the_base_in_fp32
from finetune_trainer.tokenizer import load_tokenizer
from tests.unit.engine.tiny_models import FakeRows
from tests.unit.methods.table import built, method, spec
from tests.unit.models.cases import apart, train

SUPERVISED = Objective.SUPERVISED
PROBE = verify.Probe.of_tokens([[5, 6, 7, 8, 9], [10, 11, 12]], pad=3)
PACKS = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
"""Whether bitsandbytes packs weights for inference on this machine, unless it is told not to."""


@pytest.mark.parametrize(
    ("kind", "double", "a_weight"),
    [
        # Half a byte, and a scale of four bytes for 64 weights; doubled, of one byte, and four more for 256 of those.
        (Quantization.NF4, False, 0.5 + 4 / 64),
        (Quantization.NF4, True, 0.5 + 1 / 64 + 4 / (64 * 256)),
        # One byte, and a scale for each output.
        (Quantization.INT8, False, 1 + 4 / 512),
        (Quantization.TORCHAO_INT8, False, 1 + 4 / 512),
    ],
)
def test_a_layer_takes_the_bytes_of_its_form(kind: Quantization, double: bool, a_weight: float) -> None:
    layer = nn.Linear(512, 1024, bias=False).requires_grad_(False)
    tables = 2048  # of nf4: what sixteen and 256 codes stand for, once a layer
    weight = layer.weight.detach().clone()
    made = in_few_bits(layer, kind, double=double)
    weights = 512 * 1024
    assert weights * a_weight <= held_bytes(made) <= weights * a_weight + tables + 4 * 512
    worst = (dense(made) - weight).abs().max() / weight.abs().max()
    assert worst < (0.2 if kind is Quantization.NF4 else 0.01)


def torchao_config() -> TorchAoConfig:
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def backward(model: StageModel) -> dict[str, torch.Tensor]:
    """The gradients of one step."""
    ids = torch.arange(4, 36).reshape(2, 16)
    model.module.train()
    model.module(input_ids=ids, labels=ids).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.module.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("quantization", Quantization)
def test_an_evaluation_and_a_save_leave_gradients_and_weights_as_they_are(quantization: Quantization, llama: Path) -> None:
    model = train(built(llama, method("qlora", r=4, quantization=quantization.value)))
    watch = method_of(MethodType.QLORA).course(model.module, model.stage, Length(2, 1))
    before = backward(model)
    watch.before_update(1)
    model.module.zero_grad()
    shown = PROBE.logits(model.module)
    model.module.state_dict()
    after = backward(model)
    watch.before_update(2)
    assert before.keys() == after.keys() == set(model.trainable_names())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(shown, PROBE.logits(model.module))


@pytest.mark.skipif(not PACKS, reason="bitsandbytes packs weights on CPUs with AVX512-BF16 only")
@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit. an autograd kernel was not registered")
def test_training_ends_where_an_evaluation_packs_the_weights(llama: Path) -> None:
    """The control: as bitsandbytes has it, which is what every user of it gets."""
    model = train(built(llama, method("qlora", r=4)))
    watch = method_of(MethodType.QLORA).course(model.module, model.stage, Length(2, 1))
    before = backward(model)
    watch.before_update(1)
    for layer in model.module.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = True
    model.module.zero_grad()
    PROBE.logits(model.module)
    assert all(packed(layer) for layer in model.module.modules() if hasattr(layer, "support_avx512bf16_for_cpu"))
    after = backward(model)
    assert any(not torch.allclose(before[name], after[name], rtol=0.05) for name in after), "gradients are wrong, or gone"
    with pytest.raises(TrainerError, match=r"after an evaluation .* the quantised base was changed"):
        watch.before_update(2)


def test_training_ends_where_a_gradient_is_lost(llama: Path) -> None:
    model = built(llama, method("qlora", r=4))
    watch = method_of(MethodType.QLORA).course(model.module, model.stage, Length(2, 1))
    backward(model)
    watch.before_update(1)
    next(parameter for parameter in model.module.parameters() if parameter.requires_grad).grad = None
    with pytest.raises(TrainerError, match="1 trained tensors have no gradient any more"):
        watch.before_update(2)


@pytest.mark.parametrize(
    ("options", "config"),
    [
        (
            {"quantization": "nf4"},
            lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32),
        ),
        ({"quantization": "int8"}, lambda: BitsAndBytesConfig(load_in_8bit=True)),
        ({"quantization": "torchaoInt8"}, torchao_config),
    ],
    ids=lambda value: value["quantization"] if isinstance(value, dict) else "",
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:TorchaoLoraLinear was instantiated")
def test_peft_on_the_base_that_transformers_quantises_is_what_was_trained(
    options: dict[str, Any], config: Any, llama: Path, tmp_path: Path
) -> None:
    """And on the base in fp32 it is what is merged; how far the two are apart is told."""
    model = train(built(llama, method("qlora", r=4, **options)))
    adapter.write_adapter(tmp_path, model, adapter.BaseReference(str(llama)), None)
    quantised = AutoModelForCausalLM.from_pretrained(llama, quantization_config=config(), dtype=torch.float32)
    for layer in quantised.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False  # else evaluation would round to bf16
    trained = PROBE.logits(model.module)
    assert apart(trained, PROBE.logits(PeftModel.from_pretrained(quantised, str(tmp_path)))) < 1e-4
    wanted, cost = compared(model, load_tokenizer(llama, spec((method("full"), SUPERVISED, None))), PROBE)
    assert cost is not None
    assert cost.largest_difference == pytest.approx(apart(wanted, trained))
    assert 1e-4 < cost.largest_difference < 0.5
    assert "trained on a quantised base" in cost.sentence()
    assert verify.check(verify.load_adapter(tmp_path, llama, model), wanted, PROBE, device=torch.device("cpu"), what="adapter") < 1e-4


def test_a_head_in_fp32_over_a_base_in_bf16_is_compared_in_what_the_stage_computes_in(llama: Path) -> None:
    """As on a GPU: without it the head refuses what the base says."""
    planned, both = spec((method("qlora", r=4), Objective.CLASSIFICATION, None)), Precision(torch.float32, torch.bfloat16, torch.bfloat16)
    tokenizer = load_tokenizer(llama, planned)
    model = build_stage_model(
        start=Start.base(llama), stage=planned.stages[0], spec=planned, labels=["a", "b"], tokenizer=tokenizer, precision=both, seed=1
    )
    with pytest.raises(RuntimeError, match="dtype"):
        compared(model, tokenizer, PROBE)
    prepared = SimpleNamespace(stages={"stage0": SimpleNamespace(train=FakeRows([5, 7]))})
    work: Any = SimpleNamespace(prepared=prepared, tokenizer=tokenizer, device=torch.device("cpu"))
    found = on_the_base_in_fp32(work, model)
    assert 0 < found["onTheBaseInFp32"]["largest_difference"] < 1


def test_what_another_machine_took_out_is_quantised_again(llama: Path) -> None:
    """And the base's files are read once for it, not once a layer."""
    model, other = (built(llama, method("qlora", r=4, initialization="pissa")) for _ in range(2))
    state = {name: -tensor if name.startswith("pissa/") and name.endswith(".A") else tensor.clone() for name, tensor in other.trainable_state().items()}  # fmt: skip
    name = "model.layers.0.mlp.up_proj"
    before = dense(inner_model(model.module).get_submodule(name).base_layer)
    found = known(inner_model(model.module))
    assert found is not None
    read, files = [], found.files
    found.files = lambda: read.append(1) or files()  # type: ignore[func-returns-value]
    model.load_trainable_state(state)
    assert len(read) == 1
    kept = dense(inner_model(model.module).get_submodule(name).base_layer)
    assert not torch.equal(before, kept)
    assert apart(found.exact()[f"{name}.weight"], kept) < 0.2


def test_dora_on_int8_is_impossible(llama: Path) -> None:
    model = built(llama, method("qlora", r=4, quantization="int8", dora=True))
    PROBE.logits(model.module)
    with pytest.raises(AttributeError, match="NoneType"):
        PROBE.logits(model.module)


REFUSED = [
    (method("qlora", quantization="nf4"), (), "qlora.quantization", "nf4 is done by bitsandbytes, which is missing", None),
    (method("qlora", quantization="int8"), ("torchao",), "qlora.quantization", "int8 is done by bitsandbytes", "choose torchaoInt8, which this one can do"),
    (method("qlora", quantization="torchaoInt8"), ("bitsandbytes",), "qlora.quantization", "needs torch 2.11 or later", "choose int8 or nf4"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "there", "field", "says", "hint"), REFUSED)
def test_a_package_that_is_not_there(how: dict[str, Any], there: tuple[str, ...], field: str, says: str, hint: str | None) -> None:
    (stage,) = spec((how, SUPERVISED, None)).stages
    with pytest.raises(TrainerError) as caught:
        check_installed(stage, "spec.stages[0]", find=lambda name: name if name in there else None)
    assert (caught.value.reason, caught.value.where) == (Reason.INVALID_SPEC, f"spec.stages[0].method.{field}")
    assert says in str(caught.value)
    assert (hint or "Use a trainer image that has bitsandbytes") in (caught.value.hint or "")


def test_what_is_only_hidden_from_imports_is_named_as_what_this_image_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.PACKAGES, Quantization.NF4, "finetune_is_not_there")
    for package in ("bitsandbytes", "torchao"):
        monkeypatch.setitem(sys.modules, package, None)  # as a start hides what the job does not use
    (stage,) = spec((method("qlora", quantization="nf4"), SUPERVISED, None)).stages
    with pytest.raises(TrainerError, match="which is missing") as caught:
        check_installed(stage, "spec.stages[0]")
    assert "or choose int8 or torchaoInt8, which this one can do" in (caught.value.hint or "")


def test_loftq_is_refused_where_torch_sees_no_gpu() -> None:
    stages = spec((method("lora"), SUPERVISED, "merge"), (method("qlora", initialization="loftq"), SUPERVISED, None)).stages
    (problem,) = machine_problems(stages, torch.device("cpu"))
    assert (problem.where, problem.stage) == ("spec.stages[1].method.qlora.initialization", "stage1")
    assert "on a GPU alone, and torch sees none here: write initialization: pissa or default" in str(problem)
    assert list(machine_problems(stages, None)) == [], "prepare may stand on another node than training"
    assert list(machine_problems(stages, torch.device("cuda"))) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows why it is refused without a GPU")
def test_loftq_is_impossible_without_a_gpu(llama: Path) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        built(llama, method("qlora", r=4, initialization="loftq"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_loftq_begins_nearer_to_the_base_than_its_quantisation(llama: Path) -> None:
    base = PROBE.logits(built(llama, method("full")).module)
    near, far = (PROBE.logits(built(llama, method("qlora", r=16, **more)).module) for more in ({"initialization": "loftq"}, {}))
    assert apart(base, near) < apart(base, far)


def test_a_job_names_the_packages_that_it_needs() -> None:
    how = method("qlora", quantization="int8")
    assert needed(spec((method("lora"), SUPERVISED, "merge"), (how, SUPERVISED, None)).stages) == {"bitsandbytes"}
    assert needed(spec((method("lora"), SUPERVISED, None)).stages) == set()
