"""Linear layers whose weights are kept in few bits: made, recognised, read and counted. No package is imported before a layer is made.

A layer is quantised on the CPU, whatever it is trained on: every machine gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from finetune_api.v1alpha1.methods.qlora import Quantization

OUTLIERS: Final = 6.0
"""Inputs above it are multiplied in full by bitsandbytes' int8, as its paper has it."""


def _nf4(layer: nn.Linear, double: bool) -> nn.Module:
    import bitsandbytes as bnb

    made = bnb.nn.Linear4bit(layer.in_features, layer.out_features, bias=False, quant_type="nf4", compress_statistics=double, device="meta")
    # On a CPU with AVX512-BF16 the first evaluation would pack the weights for inference: from then on no gradient comes through them, and a
    # state_dict spoils them. Both without a word.
    made.support_avx512bf16_for_cpu = False
    weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=double, module=made)
    made.weight = weight.to("cpu")
    return made


def _int8(layer: nn.Linear, double: bool) -> nn.Module:
    import bitsandbytes as bnb

    made = bnb.nn.Linear8bitLt(layer.in_features, layer.out_features, bias=False, has_fp16_weights=False, threshold=OUTLIERS, device="meta")
    made.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False).to("cpu")
    return made


def _torchao(layer: nn.Linear, double: bool) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    holder = nn.Sequential(layer)
    quantize_(holder, Int8WeightOnlyConfig())
    return holder[0]


_MAKERS: Final[Mapping[Quantization, Callable[[nn.Linear, bool], nn.Module]]] = {
    Quantization.NF4: _nf4,
    Quantization.INT8: _int8,
    Quantization.TORCHAO_INT8: _torchao,
}


def in_few_bits(layer: Any, kind: Quantization, *, double: bool) -> nn.Module:
    """A frozen layer that does what this one does, in few bits, as (outputs, inputs). double: of nf4, quantise its scales too."""
    plain, turned = layer, isinstance(layer, Conv1D)
    if turned:
        inputs, outputs = layer.weight.shape
        plain = nn.Linear(inputs, outputs, bias=False, device="meta")
        plain.weight = nn.Parameter(layer.weight.detach().T.contiguous(), requires_grad=False)
    made = _MAKERS[kind](plain, double)
    made.bias = layer.bias
    return made


def is_nf4(layer: nn.Module) -> bool:
    return type(layer).__name__ == "Linear4bit"


def is_quantised(parameter: torch.Tensor) -> bool:
    """Whether a parameter is a weight in few bits."""
    kind = type(parameter)
    return kind.__name__ in ("Params4bit", "Int8Params") or kind.__module__.startswith("torchao.")


def packed(layer: Any) -> bool:
    """Whether an nf4 layer was turned into the form for inference, through which no gradient comes."""
    return is_nf4(layer) and bool(getattr(layer.weight.quant_state, "packing_format_for_cpu", False))


def compute_in(module: nn.Module, dtype: torch.dtype) -> None:
    """Set the type in which nf4 layers multiply: one that isn't told takes that of its first input."""
    for layer in module.modules():
        if is_nf4(layer):
            layer.compute_dtype, layer.compute_type_is_set = dtype, True


def dense(layer: Any) -> torch.Tensor:
    """The weight that a linear layer multiplies by, without gradients; of a quantised one (outputs, inputs) in its compute type."""
    if not is_quantised(layer.weight):
        return layer.weight.detach()
    from peft.utils.integrations import dequantize_module_weight

    return dequantize_module_weight(layer).detach()


def entries(parameter: torch.Tensor) -> int:
    """How many weights a parameter stands for: in four bits two lie in a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()


def held_bytes(layer: Any) -> int:
    """Bytes that a quantised layer's weight takes, with its scales and tables."""
    weight = layer.weight
    if is_nf4(layer):
        state = weight.quant_state
        parts = [weight.data, state.absmax, state.code]
        parts += [state.state2.absmax, state.state2.code, state.offset] if state.nested else []
    elif hasattr(weight, "__tensor_flatten__"):
        parts = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
    else:
        parts = [weight.data, weight.SCB if weight.SCB is not None else layer.state.SCB]
    return sum(part.numel() * part.element_size() for part in parts)
