"""LoRA and its kin by PEFT: rsLoRA, DoRA, PiSSA, OLoRA, EVA, CorDA, LoRA+, with ranks and scales of single modules; alone or over a stack of frozen adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import torch
from peft import LoraConfig
from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.lora import Lora, LoraInitialization
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Method, Setting
from finetune_trainer.methods.from_data import begun_from_data, check_ranks, course, initialization_of
from finetune_trainer.methods.peft_models import TRAINED, quiet_peft, train_beside
from finetune_trainer.methods.stacks import lora_layers, with_frozen
from finetune_trainer.methods.targets import check_rank, in_layers, pattern_of, targets, trained_whole, turned
from finetune_trainer.modeling.base import seeded

INITIALIZATIONS: Final[dict[LoraInitialization, bool | str]] = {
    LoraInitialization.DEFAULT: True,
    LoraInitialization.GAUSSIAN: "gaussian",
    LoraInitialization.ORTHOGONAL: "orthogonal",
    LoraInitialization.OLORA: "olora",
    LoraInitialization.PISSA: "pissa",  # the exact decomposition; the quick one draws other vectors at every load
}


def configure(setting: Setting, options: Lora | None = None) -> LoraConfig:
    """The adapter's configuration; options: the stage's. Raises TrainerError(InvalidSpec) where they name what is not there, or fit no matrix."""
    options = options or setting.stage.method.lora or Lora()
    whole = trained_whole(setting, options.modules_to_save)
    chosen = in_layers(targets(setting, options, avoid=whole), options.layers_to_transform, setting.field("layersToTransform"))
    ranks = pattern_of(options.rank_pattern, chosen, setting.field("rankPattern"))
    check_rank(setting, chosen, {}, options.r) if not ranks else check_rank(setting, chosen, ranks, options.r, "rankPattern")
    if options.initialization is LoraInitialization.ORTHOGONAL and (odd := [r for r in (options.r, *ranks.values()) if r % 2]):
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"rank {odd[0]} is odd, and an orthogonal start halves it between A and B: write an even one",
            where=setting.field("r"),
        )
    if options.initialization is LoraInitialization.EVA:
        check_ranks(setting, options, chosen, ranks)
    with quiet_peft():
        return LoraConfig(
            r=options.r,
            lora_alpha=cast(Any, options.alpha),
            lora_dropout=options.dropout,
            target_modules=chosen,
            rank_pattern=ranks,
            alpha_pattern=pattern_of(options.alpha_pattern, chosen, setting.field("alphaPattern")),
            fan_in_fan_out=turned(setting.plain.model, chosen),
            **_begins(options),
            use_rslora=options.rs_lora,
            use_dora=options.dora,
            modules_to_save=whole or None,
            task_type=None,  # a causal model's adapter goes on a classifier only so
        )


def _begins(options: Lora) -> dict[str, Any]:
    if options.begins_from_data:
        return initialization_of(options)
    return {"init_lora_weights": INITIALIZATIONS[options.initialization]}


def apply(setting: Setting) -> nn.Module:
    """Put an adapter on the model, over the frozen ones of the start.

    A classifier's head is trained whole beside it (modules_to_save), as are weights that had to be made, and rows of added tokens.
    """
    config, options = configure(setting), setting.stage.method.lora or Lora()
    if options.begins_from_data:
        module = begun_from_data(setting, options, config)
    else:
        turned_back = options.initialization is LoraInitialization.OLORA and bool(config.fan_in_fan_out)
        config.init_lora_weights = True if turned_back else config.init_lora_weights
        with seeded(setting.seed):
            module = with_frozen(setting.plain.model, setting.start.adapters, config)
        if turned_back:
            _begin_as_olora(module)
    train_beside(setting, config.modules_to_save or ())
    return module


def _begin_as_olora(module: nn.Module) -> None:
    """OLoRA on weights that are kept turned round: PEFT's decomposes them as they lie, and its A and B then fit no input."""
    for layer in lora_layers(module).values():
        base = layer.get_base_layer().weight
        weight = base.data.T if layer.fan_in_fan_out else base.data
        q, r = torch.linalg.qr(weight.float())
        rank = layer.r[TRAINED]
        a, b = r[:rank].contiguous(), q[:, :rank].contiguous()
        layer.lora_A[TRAINED].weight.data, layer.lora_B[TRAINED].weight.data = a, b
        weight -= (layer.scaling[TRAINED] * (b @ a)).to(weight)


def rates(module: nn.Module, stage: Stage) -> Mapping[str, float]:
    """LoRA+ (Hayou et al. 2024, arXiv 2402.12354): B learns faster than A."""
    ratio = stage.method.lora.lora_plus_ratio if stage.method.lora else None
    return {name: ratio for name, _ in module.named_parameters() if f".lora_B.{TRAINED}." in name} if ratio else {}


METHOD = Method(apply, check=configure, rates=rates, course=lambda module, stage, length: course(module))
