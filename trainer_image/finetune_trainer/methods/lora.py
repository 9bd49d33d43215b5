"""LoRA, rsLoRA, DoRA and PiSSA by PEFT, alone or over a stack of frozen adapters.

PeftModel's own way to activate several adapters raises, the tuner's way makes all of them trainable: so adapters are named, activated
and frozen here. The adapter that is trained is always called "default", those under it "frozen0", "frozen1", ….
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import set_peft_model_state_dict
from torch import nn
from transformers.pytorch_utils import Conv1D

from finetune_api.constants import Reason
from finetune_api.v1alpha1.method import Lora, LoraInitialization
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.tokens import train_rows
from finetune_trainer.modeling.base import Plain, seeded
from finetune_trainer.modeling.start import Adapter, Head, Start

TRAINED: Final = "default"
FROZEN: Final = "frozen"
ALL_LINEAR: Final = "all-linear"
PEFT_PREFIX: Final = "base_model.model."
INITIALIZATIONS: Final[dict[LoraInitialization, bool | str]] = {
    LoraInitialization.DEFAULT: True,
    LoraInitialization.GAUSSIAN: "gaussian",
    LoraInitialization.PISSA: "pissa",  # the exact decomposition; the quick one draws other vectors at every load
}


def apply(plain: Plain, stage: Stage, *, start: Start, added: Sequence[int], seed: int, where: str) -> nn.Module:
    """Put an adapter on the model, over the frozen ones of the start.

    A classifier's head is trained whole beside it (modules_to_save), as are weights that had to be made, and rows of added tokens.
    Raises TrainerError(InvalidSpec) where targetModules names what is not there.
    """
    options = stage.method.lora or Lora()
    whole = _modules_trained_whole(plain)
    chosen = targets(plain, options.target_modules, avoid=whole, where=f"{where}.method.lora.targetModules")
    config = LoraConfig(
        r=options.r,
        lora_alpha=cast(Any, options.alpha),
        lora_dropout=options.dropout,
        target_modules=chosen,
        fan_in_fan_out=turned(plain.model, chosen),
        init_lora_weights=cast(Any, INITIALIZATIONS[options.initialization]),
        use_rslora=options.rs_lora,
        use_dora=options.dora,
        modules_to_save=whole or None,
        task_type=None,  # a causal model's adapter goes on a classifier only so
    )
    with seeded(seed):
        module = with_frozen(plain.model, start.adapters, config)
    for name, parameter in plain.model.named_parameters():
        if name in plain.new and name.rsplit(".", 1)[0] not in whole:
            parameter.requires_grad_(True)
    if added:
        train_rows(plain.model, added)
    return module


def with_frozen(model: Any, frozen: Sequence[Adapter], trained: LoraConfig | None = None) -> PeftModel:
    """Stack adapters on a model, all active, only the trained one trainable."""
    names = [f"{FROZEN}{index}" for index in range(len(frozen))]
    configs = {name: frozen_config(model, adapter) for name, adapter in zip(names, frozen, strict=True)}
    if trained is not None:
        configs[TRAINED] = trained
    (first, config), *others = configs.items()
    with quiet_peft():
        module = PeftModel(model, config, adapter_name=first)
    for name, config in others:
        module.add_adapter(name, config)
    for name, adapter in zip(names, frozen, strict=True):
        targets_here = set(configs[name].target_modules or ())
        tensors = {f"{PEFT_PREFIX}{key}": value for key, value in adapter.tensors.items() if key.rsplit(".", 2)[0] in targets_here}
        set_peft_model_state_dict(module, tensors, adapter_name=name)
    module.base_model.set_adapter(list(configs))
    module.active_adapter = list(configs)[-1]
    for name, parameter in module.named_parameters():
        if any(f".{adapter}." in name or name.endswith(f".{adapter}") for adapter in names):
            parameter.requires_grad_(False)
    return module


@contextmanager
def quiet_peft() -> Iterator[None]:
    """PEFT asks transformers for an attribute by its old name, once a model; nobody can do anything about the warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def frozen_config(model: Any, adapter: Adapter) -> LoraConfig:
    """The configuration of a stacked adapter, without dropout, on the modules that this model has (another head may lack some)."""
    present = {name.removesuffix(".base_layer") for name, _ in model.named_modules()}
    targets_here = [name for name in adapter.targets if name in present]
    return LoraConfig(
        r=adapter.r,
        lora_alpha=cast(Any, adapter.alpha),
        use_rslora=adapter.rs_lora,
        use_dora=adapter.dora,
        target_modules=targets_here,
        fan_in_fan_out=turned(model, targets_here),
        task_type=None,
    )


def targets(plain: Plain, patterns: Sequence[str], *, avoid: Sequence[str], where: str) -> list[str]:
    """Full names of the linear modules of the backbone that the patterns (names, or endings of names) choose."""
    model = plain.model
    backbone = f"{model.base_model_prefix}."
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and name.startswith(backbone)
        and not any(f"{name}.".startswith(f"{whole}.") for whole in avoid)
    ]
    if list(patterns) == [ALL_LINEAR]:
        return linear
    chosen: list[str] = []
    for pattern in patterns:
        hits = [name for name in linear if name == pattern or name.endswith(f".{pattern}")]
        if not hits:
            endings = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise TrainerError(
                Reason.INVALID_SPEC,
                f'{pattern!r} is no linear module of this model\'s backbone; there are {", ".join(endings)} (or ["{ALL_LINEAR}"] alone for all of them)',
                where=where,
            )
        chosen += hits
    return [name for name in linear if name in set(chosen)]


def turned(model: Any, names: Sequence[str]) -> bool:
    """Whether these modules keep their weights as (inputs, outputs), as GPT-2 does."""
    modules = {name.removesuffix(".base_layer"): module for name, module in model.named_modules()}
    return any(isinstance(getattr(modules[name], "base_layer", modules[name]), Conv1D) for name in names)


def lora_layers(module: nn.Module) -> dict[str, LoraLayer]:
    """The layers that carry the trained adapter, by their names in the plain model."""
    if not isinstance(module, PeftModel):
        return {}
    layers = module.get_base_model().named_modules()
    return {name: layer for name, layer in layers if isinstance(layer, LoraLayer) and TRAINED in layer.lora_A}


def pissa_start(module: nn.Module) -> dict[str, torch.Tensor]:
    """The singular vectors that PiSSA took out of the base weights: by them the base can be restored."""
    pairs = {name: (layer.lora_A[TRAINED].weight, layer.lora_B[TRAINED].weight) for name, layer in lora_layers(module).items()}
    return {
        f"{name}.{side}": tensor.detach().cpu().clone() for name, pair in pairs.items() for side, tensor in zip("AB", pair, strict=True)
    }


def _modules_trained_whole(plain: Plain) -> list[str]:
    """A classifier's head, and poolers that the base lacks."""
    if plain.head is not Head.CLASSIFICATION:
        return []
    heads = {name.split(".", 1)[0] for name in plain.head_names}
    made = {name.rsplit(".", 2)[0] for name in plain.new if name not in plain.head_names}
    return sorted(heads | made)
