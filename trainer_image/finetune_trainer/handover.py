"""From a finished stage to what the next one starts from: continue, merge, stack.

Weights only; optimizer, schedule and steps start anew. `hand_over` is pure, `snapshot` and `read` turn its result into files and back: a
later segment is another process, perhaps on another machine. Which pairs of methods may be handed over how is decided by the API's rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from finetune_api.constants import Reason
from finetune_api.v1alpha1.stage import HandOver
from finetune_trainer.checkpoint.snapshot import Snapshot, has, read_document, read_tensors
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.peft_models import TRAINED
from finetune_trainer.methods.stacks import lora_layers
from finetune_trainer.modeling.plain import inner_model, plain_weights, wrapped_names
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Adapter, Head, Start

DOCUMENT: Final = "start"
WEIGHTS: Final = "weights"
TRAINED_STATE: Final = "trained"


def hand_over(model: StageModel, kind: HandOver) -> Start:
    """What the next stage starts from. Raises TrainerError(HandOverIllegal) for a pair that `validate` refuses."""
    row = model.stage.method.row
    legal = {HandOver.CONTINUE: True, HandOver.MERGE: row.merges, HandOver.STACK: row.stacks}
    if not legal[kind]:
        raise TrainerError(
            Reason.HAND_OVER_ILLEGAL,
            f"{model.stage.method.type} has no adapter to {kind}: use {'merge' if row.merges else 'continue'}",
            where=f"stage {model.stage.name}, handOver",
            stage=model.stage.name,
        )
    fold = kind is HandOver.MERGE
    plain = plain_weights(model.module, fold=fold)
    prefix = f"{inner_model(model.module).base_model_prefix}."
    own_head = {name: tensor for name, tensor in plain.items() if not name.startswith(prefix)}
    changed = _changed(model, fold=fold) & plain.keys()
    keeps_head = model.head in model.start.heads or bool(changed & own_head.keys())
    return Start(
        model=model.start.model,
        weights={**model.start.weights, **{name: plain[name] for name in changed if name.startswith(prefix)}},
        heads={**model.start.heads, **({model.head: own_head} if keeps_head else {})},
        adapters=() if fold else (*model.start.adapters, *([export_adapter(model)] if kind is HandOver.STACK else [])),
        trained=_copied(model.trainable_state()) if kind is HandOver.CONTINUE and row.adapter else None,
        labels=model.labels or model.start.labels,
        extended=model.start.extended or bool(model.added),
    )


def export_adapter(model: StageModel) -> Adapter:
    """The trained low-rank adapter, for the base's own weights.

    PiSSA and OLoRA trained on a residual base: what they took out is subtracted again by a second half of the same rank, as PEFT converts it.
    """
    layers = lora_layers(model.module)
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        a, b = (side[TRAINED].weight.detach().to("cpu", torch.float32, copy=True) for side in (layer.lora_A, layer.lora_B))
        if model.taken:
            a = torch.cat([a, model.taken[f"{name}.A"]])
            b = torch.cat([b, -model.taken[f"{name}.B"]], dim=1) * float(layer.scaling[TRAINED])
        tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        if TRAINED in layer.lora_magnitude_vector:
            tensors[f"{name}.lora_magnitude_vector.weight"] = layer.lora_magnitude_vector[TRAINED].weight.detach().cpu().clone()
    config: Any = model.module.peft_config[TRAINED]
    times = 2 if model.taken else 1
    ranks = {name: times * r for name, r in config.rank_pattern.items()}
    r = times * config.r
    return Adapter(
        r=r,
        alpha=float(r if model.taken else config.lora_alpha),
        rs_lora=bool(config.use_rslora) and not model.taken,
        dora=bool(config.use_dora),
        targets=list(layers),
        tensors=tensors,
        ranks=ranks,
        alphas={name: float(rank) for name, rank in ranks.items()} if model.taken else dict(config.alpha_pattern),
    )


def snapshot(start: Start) -> Snapshot:
    """The files of a hand-over."""
    tensors: dict[str, Mapping[str, torch.Tensor]] = {f"head-{head}": weights for head, weights in start.heads.items()}
    tensors |= {f"adapter-{index}": adapter.tensors for index, adapter in enumerate(start.adapters)}
    tensors |= {WEIGHTS: start.weights} if start.weights else {}
    tensors |= {TRAINED_STATE: start.trained} if start.trained is not None else {}
    document = {
        "adapters": [
            {
                "r": adapter.r,
                "alpha": adapter.alpha,
                "rsLora": adapter.rs_lora,
                "dora": adapter.dora,
                "targets": adapter.targets,
                "ranks": dict(adapter.ranks),
                "alphas": dict(adapter.alphas),
            }
            for adapter in start.adapters
        ],
        "heads": sorted(str(head) for head in start.heads),
        "labels": start.labels,
        "extended": start.extended,
    }
    return Snapshot(tensors=tensors, documents={DOCUMENT: document})


def read(folder: Path, *, model: Path) -> Start:
    """A hand-over from its verified folder; `model` is where the base model lies for this process."""
    document = read_document(folder, DOCUMENT)
    return Start(
        model=model,
        weights=read_tensors(folder, WEIGHTS) if has(folder, WEIGHTS) else {},
        heads={Head(head): read_tensors(folder, f"head-{head}") for head in document["heads"]},
        adapters=tuple(
            Adapter(
                r=entry["r"],
                alpha=entry["alpha"],
                rs_lora=entry["rsLora"],
                dora=entry["dora"],
                targets=entry["targets"],
                tensors=read_tensors(folder, f"adapter-{index}"),
                ranks=entry.get("ranks", {}),
                alphas=entry.get("alphas", {}),
            )
            for index, entry in enumerate(document["adapters"])
        ),
        trained=read_tensors(folder, TRAINED_STATE) if has(folder, TRAINED_STATE) else None,
        labels=document["labels"],
        extended=document["extended"],
    )


def _changed(model: StageModel, *, fold: bool) -> set[str]:
    """Plain names of the weights that are not the start's any more."""
    low_rank, whole = wrapped_names(model.module)
    inner = inner_model(model.module)
    trained = {name for name, parameter in inner.named_parameters() if parameter.requires_grad}
    return set(model.new) | whole | trained | (low_rank if fold else set())


def _copied(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
