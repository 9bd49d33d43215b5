"""Bottleneck adapters (Houlsby, Pfeiffer, parallel): written here, because no library that works with transformers 5 has them.

An adapter stands around a module of the plain model, as PEFT's layers do. It is saved as PEFT would save it: a configuration, and tensors by
the names of the modules; `export/bottleneck_loader.py` is all that is needed to load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.layers import AdapterPlace, Bottleneck
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Method, OwnForm, Setting
from finetune_trainer.methods.peft_models import train_beside
from finetune_trainer.methods.targets import trained_whole
from finetune_trainer.modeling.base import seeded
from finetune_trainer.modeling.plain import OwnLayer

AFTER_ATTENTION: Final = (
    "self_attn.o_proj",
    "self_attn.out_proj",
    "self_attn.dense",
    "attn.c_proj",
    "attn.out_proj",
    "attention.output.dense",
    "attention.dense",
    "attention.wo",
)
AFTER_FEED_FORWARD: Final = ("mlp.down_proj", "mlp.c_proj", "mlp.fc2", "mlp.dense_4h_to_h", "output.dense", "mlp.wo", "fc2")
"""What architectures call the last projection of a layer's two halves; the longest ending decides."""
BESIDE: Final = ("mlp", "feed_forward")


class BottleneckLayer(OwnLayer):
    """y + s·up(f(down(y))) for the output y of a module, or of its input where it stands beside it. `up` begins at zero: the identity."""

    def __init__(self, base_layer: nn.Module, width: int, options: Bottleneck) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.down, self.up = nn.Linear(width, options.size), nn.Linear(options.size, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.dropout = nn.Dropout(options.dropout)
        self.activation = getattr(torch if options.activation == "tanh" else functional, options.activation)
        self.beside, self.scale = options.place is AdapterPlace.PARALLEL, options.scale

    def forward(self, hidden: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        output: torch.Tensor = self.base_layer(hidden, *arguments, **named)
        inner = (hidden if self.beside else output).to(self.down.weight.dtype)
        added = self.up(self.dropout(self.activation(self.down(inner))))
        return output + (self.scale * added).to(output.dtype)


def places(setting: Setting) -> list[str]:
    """The modules that get one. Raises TrainerError(InvalidSpec) where this architecture has no such place."""
    options, model = setting.stage.method.adapter or Bottleneck(), setting.plain.model
    names = [name for name, _ in model.named_modules() if name.startswith(f"{model.base_model_prefix}.")]
    if options.place is AdapterPlace.PARALLEL:
        chosen = [name for name in names if name.rsplit(".", 1)[-1] in BESIDE]
    else:
        attention = [name for name in names if name.endswith(tuple(f".{end}" for end in AFTER_ATTENTION))]
        forward = [name for name in names if name not in attention and name.endswith(tuple(f".{end}" for end in AFTER_FEED_FORWARD))]
        wanted = {*forward, *(attention if options.place is AdapterPlace.HOULSBY else ())}
        missing = not forward or (options.place is AdapterPlace.HOULSBY and not attention)
        chosen = [] if missing else [name for name in names if name in wanted]
    if not chosen:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"{model.config.model_type} models have no place for a {options.place} adapter that is known here"
            + (
                ": their feed-forward layer is no module of its own; write houlsby or pfeiffer"
                if options.place is AdapterPlace.PARALLEL
                else ""
            ),
            where=setting.field("place"),
        )
    return chosen


def apply(setting: Setting) -> nn.Module:
    options, model = setting.stage.method.adapter or Bottleneck(), setting.plain.model
    whole, chosen = trained_whole(setting), places(setting)
    model.requires_grad_(False)
    for name in whole:
        model.get_submodule(name).requires_grad_(True)
    train_beside(setting, whole)
    with seeded(setting.seed):
        for name in chosen:
            owner, _, last = name.rpartition(".")
            setattr(model.get_submodule(owner), last, BottleneckLayer(model.get_submodule(name), model.config.hidden_size, options))
    module: nn.Module = model
    return module


def tensors(module: nn.Module) -> Mapping[str, torch.Tensor]:
    """The adapters' own, by the names of their modules in the plain model."""
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, BottleneckLayer)}
    return {
        f"{name}.{part}.{leaf}": parameter.detach().to("cpu", torch.float32)
        for name, layer in layers.items()
        for part in ("down", "up")
        for leaf, parameter in layer.get_submodule(part).named_parameters()
    }


def config(module: nn.Module, stage: Stage) -> dict[str, Any]:
    """What the loader has to know."""
    options = stage.method.adapter or Bottleneck()
    return {
        "peft_type": "BOTTLENECK",
        **options.model_dump(mode="json", by_alias=False),
        "target_modules": [name for name, layer in module.named_modules() if isinstance(layer, BottleneckLayer)],
    }


LOADER: Final = Path(__file__).parent.parent / "export/bottleneck_loader.py"
METHOD = Method(apply, check=places, form=OwnForm(config, tensors, LOADER))
