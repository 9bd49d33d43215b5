"""An adapter as PEFT's folder, and the base that it belongs to.

It is published as what `PeftModel.from_pretrained` alone makes the trained model of. So a stack becomes one adapter of the summed rank,
PiSSA becomes a plain update of twice the rank on the untouched base, and a base that no hub has is written beside the adapter.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from finetune_api.constants import Reason
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_trainer.errors import TrainerError
from finetune_trainer.export.place import written
from finetune_trainer.handover import export_adapter
from finetune_trainer.methods.base import OwnForm
from finetune_trainer.methods.peft_models import PEFT_PREFIX, TRAINED
from finetune_trainer.methods.registry import method_of
from finetune_trainer.methods.stacks import lora_layers
from finetune_trainer.modeling.plain import inner_model, plain_weights
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Adapter, Head

BASE: Final = "base"
"""The folder of the base inside the adapter's, where it must be published too."""
CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
LOADER: Final = "load_adapter.py"
"""Beside an adapter that PEFT does not know."""
TASKS: Final[Mapping[Head, str | None]] = {Head.CAUSAL: "CAUSAL_LM", Head.CLASSIFICATION: "SEQ_CLS", Head.MASKED: None}


@dataclass(frozen=True)
class BaseReference:
    """What an adapter says about its base: a name of the hub or an absolute path, and the revision."""

    name: str
    revision: str | None = None


def stacked(model: StageModel) -> list[Adapter]:
    """All active adapters, for the base's own weights."""
    return [*model.start.adapters, export_adapter(model)]


def is_one_adapter(adapters: Sequence[Adapter]) -> bool:
    """Whether they can be written as one: updates add up, DoRA's scales don't."""
    return len(adapters) == 1 or not any(adapter.dora for adapter in adapters)


def combined(adapters: Sequence[Adapter]) -> Adapter:
    """One adapter that does what the stack does: ranks joined, each update's scale folded into its B. Raises TrainerError(InvalidSpec) for DoRA."""
    if len(adapters) == 1:
        return adapters[0]
    if not is_one_adapter(adapters):
        raise TrainerError(
            Reason.INVALID_SPEC,
            "a stack with DoRA in it cannot be written as one adapter: write format: [merged]",
            where="spec.output.format",
        )
    targets = list(dict.fromkeys(name for adapter in adapters for name in adapter.targets))
    r = sum(max([adapter.r, *adapter.ranks.values()]) for adapter in adapters)
    tensors: dict[str, torch.Tensor] = {}
    for name in targets:
        pairs = [_pair(adapter, name) for adapter in adapters if name in adapter.targets]
        a = torch.cat([pair[0] for pair in pairs])
        b = torch.cat([pair[1] for pair in pairs], dim=1)
        missing = r - a.shape[0]
        tensors[f"{name}.lora_A.weight"] = torch.cat([a, a.new_zeros(missing, a.shape[1])])
        tensors[f"{name}.lora_B.weight"] = torch.cat([b, b.new_zeros(b.shape[0], missing)], dim=1)
    return Adapter(r=r, alpha=float(r), rs_lora=False, dora=False, targets=targets, tensors=tensors)


def needs_base(model: StageModel) -> bool:
    """Whether the adapter's base is one that only this job has: earlier stages changed it, tokens were added, or it is a GGUF file."""
    heads = model.head is not Head.CLASSIFICATION and (model.head in model.start.heads or bool(model.new))
    return bool(model.start.weights or model.added or model.start.extended or heads) or model.start.model.suffix == ".gguf"


def base_weights(model: StageModel) -> dict[str, torch.Tensor]:
    """The weights under the adapters, with the trained rows of added tokens; what PiSSA or OLoRA took out is put back."""
    weights = plain_weights(model.module, fold=False)
    for name, layer in lora_layers(model.module).items() if model.taken else ():
        taken = layer.scaling[TRAINED] * (model.taken[f"{name}.B"] @ model.taken[f"{name}.A"])
        weights[f"{name}.weight"] += taken.T if layer.fan_in_fan_out else taken
    return weights


def write_adapter(folder: Path, model: StageModel, base: BaseReference, tokenizer: Any) -> None:
    """Write PEFT's two files, with the classifier's head among the tensors. Raises TrainerError where the storage refuses."""
    form = method_of(model.stage.method.type).form
    if form is not None:
        _write_own(folder, model, base, form)
    else:
        _write_peft(folder, model, base)
    if tokenizer is not None:
        written(folder, lambda: tokenizer.save_pretrained(folder))


def _write_own(folder: Path, model: StageModel, base: BaseReference, form: OwnForm) -> None:
    plain = plain_weights(model.module, fold=False)
    heads = inner_model(model.module).base_model_prefix
    beside = {
        name: tensor for name, tensor in plain.items() if name in model.new or (_classifies(model) and not name.startswith(f"{heads}."))
    }
    tensors = {name: tensor.contiguous() for name, tensor in {**form.tensors(model.module), **beside}.items()}
    config = {"base_model_name_or_path": base.name, "revision": base.revision, **form.config(model.module, model.stage)}
    written(folder, lambda: save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"}))
    written(folder, lambda: (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n"))
    written(folder, lambda: shutil.copyfile(form.loader, folder / LOADER))


def _classifies(model: StageModel) -> bool:
    return model.head is Head.CLASSIFICATION


def _write_peft(folder: Path, model: StageModel, base: BaseReference) -> None:
    config, tensors = _low_rank(model) if lora_layers(model.module) else _as_peft_has_it(model)
    config.base_model_name_or_path, config.revision = base.name, base.revision
    config.task_type, config.inference_mode = cast(Any, TASKS[model.head]), True
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    written(folder, lambda: save_file(whole, folder / WEIGHTS, metadata={"format": "pt"}))
    written(folder, lambda: config.save_pretrained(str(folder)))
    written(folder, lambda: _sort_lists(folder / CONFIG))


def _as_peft_has_it(model: StageModel) -> tuple[PeftConfig, dict[str, torch.Tensor]]:
    """An adapter of another kind than LoRA: as PEFT itself would save it."""
    peft = cast(PeftModel, model.module)
    tensors = get_peft_model_state_dict(peft, adapter_name=TRAINED, save_embedding_layers=False)
    return copy.deepcopy(peft.peft_config[TRAINED]), {name: tensor.detach().to("cpu", torch.float32) for name, tensor in tensors.items()}


def _low_rank(model: StageModel) -> tuple[PeftConfig, dict[str, torch.Tensor]]:
    """LoRA and what becomes LoRA, one adapter whatever it is stacked on."""
    adapter = combined(stacked(model))
    peft = cast(PeftModel, model.module)
    own = peft.peft_config[TRAINED]
    whole = sorted(own.modules_to_save or ())
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=cast(Any, adapter.alpha),
        lora_dropout=own.lora_dropout,
        use_rslora=adapter.rs_lora,
        use_dora=adapter.dora,
        rank_pattern=dict(adapter.ranks),
        alpha_pattern=dict(adapter.alphas),
        fan_in_fan_out=own.fan_in_fan_out,
        target_modules=short_names(adapter.targets, [name for name, _ in inner_model(peft).named_modules()]),
        modules_to_save=whole or None,
    )
    plain = plain_weights(peft, fold=False) if whole else {}
    heads = {name: tensor for name, tensor in plain.items() if any(name.startswith(f"{module}.") for module in whole)}
    return config, {f"{PEFT_PREFIX}{name}": tensor for name, tensor in {**adapter.tensors, **heads}.items()}


def base_reference(model: StageModel, spec: FineTuneJobSpec, *, revision: str | None, target: Path) -> BaseReference:
    """How the published adapter names its base. A path is absolute: PEFT reads it from whatever folder its user is in."""
    if needs_base(model):
        return BaseReference(str(target / BASE))
    if spec.model.uri.startswith("hf://"):
        return BaseReference("/".join(spec.model.uri.removeprefix("hf://").split("/")[:2]), revision)
    return BaseReference(str(model.start.model.resolve()))


def short_names(targets: Sequence[str], modules: Sequence[str]) -> list[str]:
    """The targets by their last names where these choose the same modules, as users write them; else by their full names."""
    last = sorted({name.rsplit(".", 1)[-1] for name in targets})
    plain = {name.removesuffix(".base_layer") for name in modules}
    chosen = {name for name in plain if name.rsplit(".", 1)[-1] in last}
    return last if chosen == set(targets) else list(targets)


def _sort_lists(path: Path) -> None:
    """PEFT writes sets in whatever order they have in this process; the same adapter shall be the same bytes."""
    document = json.loads(path.read_bytes())
    ordered = {
        name: sorted(value) if name in ("target_modules", "modules_to_save") and value else value for name, value in document.items()
    }
    path.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n")


def _pair(adapter: Adapter, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return adapter.tensors[f"{name}.lora_A.weight"], adapter.scale(name) * adapter.tensors[f"{name}.lora_B.weight"]
