"""A base whose linear layers are kept in few bits, and its knowledge of what they stand for.

What is folded, handed over and published comes from the weights as they are in the base's files: they are loaded again when they are asked
for, and kept by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from finetune_api.v1alpha1.methods.qlora import Quantization
from finetune_trainer.modeling.few_bits import held_bytes, in_few_bits

ATTRIBUTE: Final = "finetune_quantised"
Tensors = Mapping[str, torch.Tensor]


@dataclass
class Quantised:
    """What a model knows of its quantised layers. Copies of the model share it."""

    kind: Quantization
    double: bool
    names: tuple[str, ...]
    """Of the layers, in the plain model."""
    turned: frozenset[str]
    """Those whose plain weight is (inputs, outputs)."""
    before: int
    """Bytes of these weights in fp32."""
    files: Callable[[], Tensors]
    """The weights by their plain names, fp32, from the base's files and the stages before."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Of layers that an initialisation took something out of: by which B · A is multiplied."""
    taken: Tensors = field(default_factory=dict)
    """What it took: NAME.A and NAME.B."""

    def exact(self) -> dict[str, torch.Tensor]:
        """What was quantised, fp32, by plain names: the weights less what was taken out of them."""
        weights = dict(self.files())
        for name, scale in self.scales.items():
            pair = scale * (self.taken[f"{name}.B"].float() @ self.taken[f"{name}.A"].float())
            weights[f"{name}.weight"] = weights[f"{name}.weight"] - (pair.T if name in self.turned else pair)
        return weights

    def __deepcopy__(self, memo: object) -> Quantised:
        return self


def known(model: nn.Module) -> Quantised | None:
    """What a plain model knows of its quantised layers; None where it has none."""
    found: Quantised | None = getattr(model, ATTRIBUTE, None)
    return found


def quantise(model: Any, names: Sequence[str], kind: Quantization, *, double: bool, files: Callable[[], Tensors]) -> Quantised:
    """Keep the weights of these linear layers (plain names) in few bits, under adapters too."""
    before, turned = 0, set()
    for name in names:
        layer: Any = model.get_submodule(_place(model, name))
        before += 4 * layer.weight.numel()
        turned |= {name} if isinstance(layer, Conv1D) else set()
        _put(model, name, in_few_bits(layer, kind, double=double))
    found = Quantised(kind, double, tuple(names), frozenset(turned), before, files)
    setattr(model, ATTRIBUTE, found)
    return found


def quantise_again(model: Any, name: str, weight: torch.Tensor) -> None:
    """Put another weight, as the plain model has it, into a quantised layer."""
    found = known(model)
    assert found is not None, "a plain layer's weight is changed where it is"
    layer: Any = model.get_submodule(_place(model, name))
    fresh = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    fresh.weight = nn.Parameter(weight.T.contiguous() if name in found.turned else weight, requires_grad=False)
    fresh.bias = layer.bias
    _put(model, name, in_few_bits(fresh, found.kind, double=found.double))


def figures(model: Any) -> dict[str, Any]:
    """For the report: what is quantised, and what it takes."""
    found = known(model)
    if found is None:
        return {}
    return {
        "quantization": str(found.kind),
        "quantizedLayers": len(found.names),
        "quantizedBytes": sum(held_bytes(model.get_submodule(_place(model, name))) for name in found.names),
        "quantizedBytesInFp32": found.before,
    }


def _place(model: Any, name: str) -> str:
    """Where a plain layer lies: an adapter stands in its place, and holds it."""
    return f"{name}.base_layer" if hasattr(model.get_submodule(name), "base_layer") else name


def _put(model: Any, name: str, layer: nn.Module) -> None:
    owner, _, leaf = _place(model, name).rpartition(".")
    setattr(model.get_submodule(owner), leaf, layer)
