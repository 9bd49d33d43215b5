"""What a stage trains, in a sentence for people: how much, and of plain models which parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from torch import nn

from finetune_trainer.methods.targets import layer_of

SHOWN: Final = 8


def trained_parts(parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """Whole layers as one, of others each parameter; empty where all or none are trained. Example: layers 28 to 29, model.norm.weight"""
    names = [name for name, parameter in parameters.items() if parameter.requires_grad]
    if not names or len(names) == len(parameters):
        return []
    layers: dict[int, list[str]] = {}
    for name in parameters:
        if (number := layer_of(f".{name}.")) is not None:
            layers.setdefault(number, []).append(name)
    whole = sorted(number for number, own in layers.items() if set(own) <= set(names))
    rest = [name for name in names if layer_of(f".{name}.") not in whole]
    found = [*_ranges(whole), *rest]
    return found if len(found) <= SHOWN else [*found[:SHOWN], f"{len(found) - SHOWN} more"]


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """layers 2 to 4, layer 7"""
    start = 0
    for index in range(1, len(numbers) + 1):
        if index == len(numbers) or numbers[index] != numbers[index - 1] + 1:
            first, last = numbers[start], numbers[index - 1]
            yield f"layer {first}" if first == last else f"layers {first} to {last}"
            start = index
