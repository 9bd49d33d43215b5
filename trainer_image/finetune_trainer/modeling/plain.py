"""The plain model inside a trained module: names without PEFT's wrappers, low-rank updates folded into the weights in fp32.

Nothing is changed in the module, so that it can go on being measured, saved and published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from torch.nn.utils import parametrize


def inner_model(module: nn.Module) -> Any:
    """The transformers model inside PEFT's wrapper, or the module itself."""
    return module.get_base_model() if isinstance(module, PeftModel) else module


def plain_weights(module: nn.Module, *, fold: bool = True) -> dict[str, torch.Tensor]:
    """Every weight under its name in the plain model, fp32 on the CPU; a tied weight stands once.

    fold: add the active low-rank updates to the weights; without it they are left as the base's.
    """
    inner = inner_model(module)
    wrappers = {
        name: sub
        for name, sub in inner.named_modules()
        if isinstance(sub, LoraLayer | ModulesToSaveWrapper) or parametrize.is_parametrized(sub, "weight")
    }
    result: dict[str, torch.Tensor] = {}
    for name, parameter in inner.named_parameters():
        owner = _owner(name, wrappers)
        if owner is None:
            result[name] = _exact(parameter)
        else:
            result.update(_unwrapped(owner, wrappers[owner], name.removeprefix(f"{owner}."), parameter, fold=fold))
    return result


def wrapped_names(module: nn.Module) -> tuple[set[str], set[str]]:
    """Plain names of the weights under low-rank updates, and of those that wrappers train whole (heads, rows of added tokens)."""
    low_rank: set[str] = set()
    whole: set[str] = set()
    for name, sub in inner_model(module).named_modules():
        if isinstance(sub, LoraLayer):
            low_rank.add(f"{name}.weight")
        elif isinstance(sub, ModulesToSaveWrapper):
            whole |= {f"{name}.{parameter}" for parameter, _ in sub.original_module.named_parameters()}
        elif parametrize.is_parametrized(sub, "weight"):
            whole.add(f"{name}.weight")
    return low_rank, whole


def folded(layer: LoraLayer, adapters: Sequence[str] | None = None) -> torch.Tensor:
    """A layer's weight with its active adapters (or these) folded in, fp32: the same sum that its forward pass makes, adapter by adapter.

    DoRA's norm is taken over the base weight and its own update, as PEFT's forward pass does, whatever lies under it.
    """
    base = layer.get_base_layer().weight.detach().float()
    turned = bool(layer.fan_in_fan_out)
    total = base.clone()
    for name in layer.active_adapters if adapters is None else adapters:
        if name not in layer.lora_A:
            continue
        delta = layer.get_delta_weight(name).detach().float()
        total += delta
        if name in layer.lora_magnitude_vector:
            norm = torch.linalg.norm((base + delta).T if turned else base + delta, dim=1)
            factor = (layer.lora_magnitude_vector[name].weight.detach().float() / norm).view(-1, 1)
            total *= factor.T if turned else factor
    return total


def _unwrapped(owner: str, wrapper: nn.Module, rest: str, parameter: torch.Tensor, *, fold: bool) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(wrapper, LoraLayer):
        if rest.startswith("base_layer."):
            leaf = rest.removeprefix("base_layer.")
            yield f"{owner}.{leaf}", _exact(folded(wrapper)) if fold and leaf == "weight" else _exact(parameter)
    elif isinstance(wrapper, ModulesToSaveWrapper):
        trained = f"modules_to_save.{wrapper.active_adapters[0]}."
        if rest.startswith(trained):
            yield f"{owner}.{rest.removeprefix(trained)}", _exact(parameter)
    elif not rest.startswith("parametrizations.weight.0."):
        leaf = rest.removeprefix("parametrizations.").removesuffix(".original")
        yield f"{owner}.{leaf}", _exact(cast(Any, wrapper).weight if leaf == "weight" else parameter)


def _owner(name: str, wrappers: dict[str, nn.Module]) -> str | None:
    """The innermost wrapper that a parameter lies in."""
    parts = name.split(".")
    return next((prefix for end in range(len(parts) - 1, 0, -1) if (prefix := ".".join(parts[:end])) in wrappers), None)


def _exact(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)
