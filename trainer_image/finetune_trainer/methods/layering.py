"""The depth of parameters: what lies below the layers (embeddings), in which layer, and above them (the last norm, the head)."""

from __future__ import annotations

from torch import nn

from finetune_trainer.methods.targets import layer_of


def depths(module: nn.Module) -> dict[str, int]:
    """Parameter → 0 below the layers, 1 to L in them, L + 1 above. A projection that is tied to the embeddings counts as these."""
    names = [name for name, _ in module.named_parameters()]
    numbers = {name: layer_of(f".{name}.") for name in names}
    layers = [number for number in numbers.values() if number is not None]
    top = max(layers, default=-1) + 2
    first = next((index for index, name in enumerate(names) if numbers[name] is not None), len(names))
    return {name: number + 1 if (number := numbers[name]) is not None else 0 if index < first else top for index, name in enumerate(names)}
