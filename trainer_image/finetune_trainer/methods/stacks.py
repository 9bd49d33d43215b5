"""Low-rank adapters over one another: all active, only the uppermost trained.

PeftModel's own way to activate several adapters raises, the tuner's way makes all of them trainable: so adapters are named, activated
and frozen here. The adapter that is trained is always called "default", those under it "frozen0", "frozen1", ….
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import set_peft_model_state_dict
from torch import nn

from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.methods.peft_models import PEFT_PREFIX, TRAINED, quiet_peft
from finetune_trainer.methods.targets import turned
from finetune_trainer.modeling.start import Adapter

FROZEN: Final = "frozen"
TAKEN: Final = "pissa/"
"""Before the names, in a trainable state, of what PiSSA, OLoRA or CorDA took out of the base."""


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


def frozen_config(model: Any, adapter: Adapter) -> LoraConfig:
    """The configuration of a stacked adapter, without dropout, on the modules that this model has (another head may lack some)."""
    present = {name.removesuffix(".base_layer") for name, _ in model.named_modules()}
    targets_here = [name for name in adapter.targets if name in present]
    return LoraConfig(
        r=adapter.r,
        lora_alpha=cast(Any, adapter.alpha),
        use_rslora=adapter.rs_lora,
        use_dora=adapter.dora,
        rank_pattern=dict(adapter.ranks),
        alpha_pattern=dict(adapter.alphas),
        target_modules=targets_here,
        fan_in_fan_out=turned(model, targets_here),
        task_type=None,
    )


def lora_layers(module: nn.Module) -> dict[str, LoraLayer]:
    """The layers that carry a trained low-rank adapter, by their names in the plain model. AdaLoRA's are another kind, though derived from these."""
    if not isinstance(module, PeftModel):
        return {}
    layers = module.get_base_model().named_modules()
    return {
        name: layer
        for name, layer in layers
        if isinstance(layer, LoraLayer) and isinstance(layer.lora_A, nn.ModuleDict) and TRAINED in layer.lora_A
    }


def leaves_a_residual(stage: Stage) -> bool:
    """Whether the stage's adapter starts from a part of the base's weights, which is taken out of them."""
    options = stage.method.lora or stage.method.qlora
    return options is not None and options.initialization.value in ("pissa", "olora", "corda", "loftq")


def taken_out(module: nn.Module) -> dict[str, torch.Tensor]:
    """What PiSSA, OLoRA or CorDA took out of the base weights at the start (its first A and B): by it the base can be restored."""
    pairs = {name: (layer.lora_A[TRAINED].weight, layer.lora_B[TRAINED].weight) for name, layer in lora_layers(module).items()}
    return {
        f"{name}.{side}": tensor.detach().cpu().clone() for name, pair in pairs.items() for side, tensor in zip("AB", pair, strict=True)
    }
