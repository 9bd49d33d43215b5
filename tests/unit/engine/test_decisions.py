"""What is decided once: number types, whether packing is exact, when to stop, and what counts as a number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.layers import Weights
from finetune_api.v1alpha1.stage import Objective
from finetune_api.v1alpha1.training import EarlyStopping, MixedPrecision
from finetune_trainer.engine.collate import Collator, Packing
from finetune_trainer.engine.finite import MAX_OVERFLOWS, check_losses, check_scale, out_of_memory
from finetune_trainer.engine.packing_probe import leakage, packing_for, padding_is_harmless
from finetune_trainer.engine.precision import apply_precision, resolve_precision
from finetune_trainer.engine.stopping import Verdict, observe
from finetune_trainer.engine.validation import averages
from finetune_trainer.errors import TrainerError
from tests.unit.engine.tiny_models import VOCABULARY, model

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("request_", "device", "capable", "frozen", "autocast"),
    [
        ("auto", CPU, False, FP32, None),
        ("bf16", CPU, False, FP32, BF16),
        ("auto", GPU, True, BF16, BF16),
        ("auto", GPU, False, BF16, FP16),
        ("fp16", GPU, True, BF16, FP16),
        ("no", GPU, True, FP32, None),
    ],
)
def test_number_types(request_: str, device: torch.device, capable: bool, frozen: torch.dtype, autocast: torch.dtype | None) -> None:
    found = resolve_precision(MixedPrecision(request_), device=device, checkpoint=BF16, bf16_capable=capable)
    assert (found.trainable, found.frozen, found.autocast) == (FP32, frozen, autocast)


def test_weights_in_bf16_compute_in_bf16() -> None:
    asked = {"checkpoint": BF16, "weights": Weights.BF16}
    for device in (CPU, GPU):
        found = resolve_precision(MixedPrecision.AUTO, device=device, bf16_capable=True, **asked)  # type: ignore[arg-type] # of three kinds
        assert (found.trainable, found.autocast) == (BF16, BF16)
    with pytest.raises(TrainerError, match=r"write full: \{weights: fp32\}"):
        resolve_precision(MixedPrecision.AUTO, device=GPU, bf16_capable=False, **asked)  # type: ignore[arg-type] # of three kinds


@pytest.mark.parametrize(("request_", "device"), [("fp16", CPU), ("bf16", GPU)])
def test_what_the_device_cannot_compute_is_refused(request_: str, device: torch.device) -> None:
    with pytest.raises(TrainerError, match="write auto") as caught:
        resolve_precision(MixedPrecision(request_), device=device, checkpoint=FP32, bf16_capable=False)
    assert caught.value.reason is Reason.INVALID_SPEC


def test_only_what_is_not_trained_keeps_the_checkpoint_s_type() -> None:
    net = model("lora").to(BF16)
    apply_precision(net, resolve_precision(MixedPrecision.AUTO, device=GPU, checkpoint=BF16, bf16_capable=True))
    assert {(parameter.requires_grad, parameter.dtype) for parameter in net.parameters()} == {(True, FP32), (False, BF16)}


CAUSAL = Collator(Objective.CAUSAL_LANGUAGE_MODELING, pad_id=0)


@pytest.mark.parametrize(
    ("kind", "packing"), [("llama", Packing.POSITIONS), ("gpt2", Packing.POSITIONS), ("qwen3", Packing.POSITIONS), ("opt", Packing.MASK)]
)
def test_the_probe_finds_the_packing_that_is_exact(kind: str, packing: Packing) -> None:
    assert packing_for(model(kind), CAUSAL, vocabulary=VOCABULARY, device=CPU) is packing


def test_a_bf16_model_is_probed_in_fp32_and_keeps_its_type() -> None:
    net = model("llama").to(BF16)
    assert packing_for(net, CAUSAL, vocabulary=VOCABULARY, device=CPU) is Packing.POSITIONS
    assert {parameter.dtype for parameter in net.parameters()} == {BF16}


def test_packing_is_refused_where_documents_leak() -> None:
    with pytest.raises(TrainerError, match=r"stage domain, training\.packing: packed documents change each other") as caught:
        packing_for(model("bloom"), CAUSAL, vocabulary=VOCABULARY, device=CPU, where="stage domain, training.packing")
    assert caught.value.reason is Reason.PACKING_UNSAFE
    assert "0." in str(caught.value), "the message says how much leaks"


def test_a_plain_concatenation_leaks_so_the_probe_can_fail() -> None:
    class Concatenated(Collator):
        def packed(self, rows, packs):  # type: ignore[no-untyped-def]
            batch = super().packed(rows, packs)
            batch.inputs.pop("position_ids")
            return batch

    leaky = Concatenated(Objective.CAUSAL_LANGUAGE_MODELING, pad_id=0, packing=Packing.POSITIONS)
    assert leakage(model("llama"), leaky, vocabulary=VOCABULARY, device=CPU) > 0.01


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_padding_on_the_right_needs_no_mask_in_causal_models(kind: str) -> None:
    assert padding_is_harmless(model(kind), CAUSAL, vocabulary=VOCABULARY, device=CPU)


def history(rule: EarlyStopping, values: list[float]) -> list[Verdict]:
    verdicts = [Verdict()]
    for step, value in enumerate(values, start=1):
        verdicts.append(observe(verdicts[-1], rule, value, step=step))
    return verdicts[1:]


@pytest.mark.parametrize(
    ("rule", "values", "stopped_at", "best_step"),
    [
        ({"patience": 2}, [3.0, 2.0, 2.5, 2.1], 4, 2),
        ({"patience": 2}, [3.0, 2.0, 2.5, 1.9, 2.2], None, 4),
        ({"patience": 1}, [3.0, 3.0], 2, 1),
        ({"patience": 1, "threshold": 0.5}, [3.0, 2.9], 2, 2),
        ({"patience": 2, "metric": "eval_accuracy"}, [0.1, 0.4, 0.3, 0.2], 4, 2),
    ],
    ids=["patience", "an improvement starts anew", "equal is no improvement", "below the threshold", "more is better"],
)
def test_early_stopping(rule: dict[str, object], values: list[float], stopped_at: int | None, best_step: int) -> None:
    verdicts = history(EarlyStopping.model_validate(rule), values)
    stops = [number for number, verdict in enumerate(verdicts, start=1) if verdict.exhausted]
    assert stops[:1] == ([stopped_at] if stopped_at else [])
    assert verdicts[-1].best_step == best_step
    assert Verdict.load(verdicts[-1].document()) == verdicts[-1]


@pytest.mark.parametrize(
    ("losses", "norm", "scaled", "named"),
    [
        ([1.0, math.nan], 1.0, False, "the loss is nan; rows of the batch: c, d"),
        ([math.inf, 1.0], 1.0, True, "the loss is inf; rows of the batch: a, b"),
        ([1.0, 1.0], math.inf, False, "the gradient's norm is inf; rows of the batch: a, b, c, d"),
    ],
)
def test_what_is_no_number_ends_the_stage_with_step_and_rows(losses: list[float], norm: float, scaled: bool, named: str) -> None:
    with pytest.raises(TrainerError) as caught:
        check_losses(losses, norm, scaled=scaled, step=9, ids=[["a", "b"], ["c", "d"]])
    assert (caught.value.reason, caught.value.step) == (Reason.LOSS_DIVERGED, 9)
    assert str(caught.value) == f"at step 9 {named}"


def test_an_overflow_of_scaled_gradients_is_skipped_until_no_scale_helps() -> None:
    check_losses([1.0], math.inf, scaled=True, step=1, ids=[["a"]])
    check_scale(MAX_OVERFLOWS - 1, step=1, ids=[["a"]])
    with pytest.raises(TrainerError, match="in a row"):
        check_scale(MAX_OVERFLOWS, step=1, ids=[["a"]])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError("no"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_memory_that_is_out_is_one_reason(error: Exception, tmp_path: object) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=8, use_cpu=True, report_to="none")
    with pytest.raises(TrainerError, match="at step 3, with 8 rows a batch") as caught, out_of_memory(3, arguments):
        raise error
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory(3, arguments):
        raise RuntimeError("shapes do not match")


def test_averages_are_those_of_scikit_learn() -> None:
    """Class 3 is never true, class 2 never predicted: sklearn.metrics.precision_recall_fscore_support(…, zero_division=0)."""
    found = averages(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 3, 3]))
    precision, recall, f1 = [1.0, 0.5, 0.0, 0.0], [2 / 3, 0.5, 0.0, 0.0], [0.8, 0.5, 0.0, 0.0]
    for name, scores in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert found[f"eval_{name}_macro"] == pytest.approx(sum(scores) / 4)
        assert found[f"eval_{name}_weighted"] == pytest.approx((3 * scores[0] + 2 * scores[1] + scores[2]) / 6)


@pytest.mark.parametrize(
    ("metric", "falls"), [("eval_perplexity", True), ("eval_loss", True), ("eval_f1_weighted", False), ("eval_recall_macro", False)]
)
def test_less_is_better_for_loss_and_perplexity_alone(metric: str, falls: bool) -> None:
    rule = EarlyStopping.model_validate({"metric": metric})
    verdict = observe(observe(Verdict(), rule, 2.0, step=1), rule, 1.0, step=2)
    assert verdict.best_step == (2 if falls else 1)
