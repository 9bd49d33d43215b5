"""The plain model inside a trained module: names without PEFT's wrappers, adapters folded into the weights in fp32.

Nothing is changed in the module, so that it can go on being measured, saved and published.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from torch.nn.utils import parametrize

from finetune_trainer.modeling.few_bits import dense, is_quantised
from finetune_trainer.modeling.quantised import known


class OwnLayer(nn.Module):
    """An adapter's layer that is not PEFT's: it stands in the place of a module, which is its `base_layer`, and cannot be folded into it."""


def inner_model(module: nn.Module) -> Any:
    """The transformers model inside PEFT's wrapper, or the module itself."""
    return module.get_base_model() if isinstance(module, PeftModel) else module


def plain_weights(module: nn.Module, *, fold: bool = True) -> dict[str, torch.Tensor]:
    """Every weight under its name in the plain model, fp32 on the CPU; a tied weight stands once. Of quantised layers what was quantised.

    fold: put what the active adapters do into the weights; without it they are left as the base's.
    """
    inner = inner_model(module)
    wrappers, quantised = _wrappers(inner), known(inner)
    result = quantised.exact() if quantised is not None else {}
    exact = dict(result)
    for name, parameter in inner.named_parameters():
        if is_quantised(parameter):
            continue
        owner = _owner(name, wrappers)
        if owner is None:
            result[name] = _exact(parameter)
        else:
            result.update(_unwrapped(owner, wrappers[owner], name.removeprefix(f"{owner}."), parameter))
    for owner, wrapper in wrappers.items():
        if fold and isinstance(wrapper, BaseTunerLayer):
            result |= {f"{owner}.{leaf}": _exact(tensor) for leaf, tensor in folded(wrapper, exact.get(f"{owner}.weight")).items()}
    return result


def _wrappers(inner: nn.Module) -> dict[str, nn.Module]:
    """The modules that stand in the place of a plain one, by its name; what lies inside an adapter stands for nothing."""
    found: dict[str, nn.Module] = {}
    for name, sub in inner.named_modules():
        inside = any(name.startswith(f"{owner}.") for owner, wrapper in found.items() if isinstance(wrapper, BaseTunerLayer | OwnLayer))
        if not inside and (isinstance(sub, BaseTunerLayer | OwnLayer | ModulesToSaveWrapper) or parametrize.is_parametrized(sub, "weight")):
            found[name] = sub
    return found


def wrapped_names(module: nn.Module) -> tuple[set[str], set[str]]:
    """Plain names of the weights under adapters, and of those that wrappers train whole (heads, rows of added tokens)."""
    adapted: set[str] = set()
    whole: set[str] = set()
    for name, sub in _wrappers(inner_model(module)).items():
        if isinstance(sub, BaseTunerLayer):
            adapted |= {f"{name}.{leaf}" for leaf, _ in sub.get_base_layer().named_parameters()}
        elif isinstance(sub, ModulesToSaveWrapper):
            whole |= {f"{name}.{parameter}" for parameter, _ in sub.original_module.named_parameters()}
        elif not isinstance(sub, OwnLayer):
            whole.add(f"{name}.weight")
    return adapted, whole


def folded(layer: Any, exact: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """A layer's weights with its active adapters folded in, fp32, by their names in the plain layer. exact: its weight, where it is quantised."""
    if isinstance(layer, LoraLayer) and not isinstance(layer, AdaLoraLayer):
        return {"weight": low_rank(layer, layer.active_adapters, exact)}
    merged = copy.deepcopy(layer).float().eval()  # merging changes the layer, and rounds in its type
    merged.merge()
    return {name: parameter.detach() for name, parameter in merged.get_base_layer().named_parameters()}


def low_rank(layer: LoraLayer, adapters: Sequence[str], exact: torch.Tensor | None = None) -> torch.Tensor:
    """The layer's weight, or `exact` in its place, with these adapters folded in: the same sum that its forward pass makes, adapter by adapter.

    DoRA's norm is taken over the base weight and its own update, as PEFT's forward pass does, whatever lies under it.
    """
    base = (dense(layer.get_base_layer()) if exact is None else exact.to(layer.lora_A[adapters[0]].weight.device)).float()
    turned = bool(layer.fan_in_fan_out)
    total = base.clone()
    for name in adapters:
        if name not in layer.lora_A:
            continue
        delta = layer.get_delta_weight(name).detach().float()
        total += delta
        if name in layer.lora_magnitude_vector:
            norm = torch.linalg.norm((base + delta).T if turned else base + delta, dim=1)
            factor = (layer.lora_magnitude_vector[name].weight.detach().float() / norm).view(-1, 1)
            total *= factor.T if turned else factor
    return total


def _unwrapped(owner: str, wrapper: nn.Module, rest: str, parameter: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(wrapper, BaseTunerLayer | OwnLayer):
        if rest.startswith("base_layer."):
            yield f"{owner}.{rest.removeprefix('base_layer.')}", _exact(parameter)
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
