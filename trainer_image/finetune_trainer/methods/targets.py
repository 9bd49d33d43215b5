"""Which modules of a model a method is put on, from what the manifest says: names, endings of names, numbers of layers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from torch import nn
from transformers.pytorch_utils import Conv1D

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.common import Targeted
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Setting
from finetune_trainer.modeling.base import Plain
from finetune_trainer.modeling.start import Head

ALL_LINEAR: Final = "all-linear"
V = TypeVar("V")


def targets(setting: Setting, options: Targeted, *, avoid: Sequence[str]) -> list[str]:
    """Full names of the linear modules of the backbone that the options choose. Raises TrainerError(InvalidSpec)."""
    linear = linear_modules(setting.plain, avoid=avoid)
    if list(options.target_modules) == [ALL_LINEAR]:
        chosen = list(linear)
    else:
        chosen = matching(linear, options.target_modules, setting.field("targetModules"), what="linear module", all_of_them=ALL_LINEAR)
    return chosen


def linear_modules(plain: Plain, *, avoid: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The linear modules of the backbone by their full names."""
    backbone = f"{plain.model.base_model_prefix}."
    return {
        name: module
        for name, module in plain.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and name.startswith(backbone)
        and not any(f"{name}.".startswith(f"{whole}.") for whole in avoid)
    }


def matching(names: Iterable[str], patterns: Sequence[str], where: str, *, what: str, all_of_them: str = "") -> list[str]:
    """The names that are, or end in, one of the patterns. Raises TrainerError for one that matches none, with the nearest first."""
    names, chosen = list(names), set()
    for pattern in patterns:
        hits = [name for name in names if name == pattern or name.endswith(f".{pattern}")]
        if not hits:
            more = f' (or ["{all_of_them}"] alone for all of them)' if all_of_them else ""
            there = f"there are {', '.join(_nearest_first(pattern, names))}{more}" if names else "there is none"
            raise TrainerError(Reason.INVALID_SPEC, f"{pattern!r} is no {what} of this model's backbone; {there}", where=where)
        chosen |= set(hits)
    return [name for name in names if name in chosen]


def in_layers(names: Sequence[str], layers: Sequence[int] | None, where: str) -> list[str]:
    """Those in the layers of these numbers."""
    if layers is None:
        return list(names)
    numbers = {name: layer_of(name) for name in names}
    there = {number for number in numbers.values() if number is not None}
    missing = sorted(set(layers) - there)
    if missing:
        span = f"has layers {min(there)} to {max(there)}" if there else "has no numbered layers"
        raise TrainerError(Reason.INVALID_SPEC, f"there is no layer {missing[0]} to put it on: this model {span}", where=where)
    return [name for name in names if numbers[name] in set(layers)]


def layer_of(name: str) -> int | None:
    """The number of the layer that a module or parameter lies in."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found.group(1)) if found else None


def pattern_of(values: Mapping[str, V] | None, targets: Sequence[str], where: str) -> dict[str, V]:
    """A value by the full name of each module that a pattern names; the longest pattern decides."""
    found: dict[str, V] = {}
    for pattern in sorted(values or {}, key=len):
        for name in matching(targets, [pattern], where, what="module with an adapter"):
            found[name] = (values or {})[pattern]
    return found


def turned(model: Any, names: Sequence[str]) -> bool:
    """Whether these modules keep their weights as (inputs, outputs), as GPT-2 does."""
    modules = {name.removesuffix(".base_layer"): module for name, module in model.named_modules()}
    return any(isinstance(getattr(modules[name], "base_layer", modules[name]), Conv1D) for name in names)


def shape_of(module: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a linear module."""
    first, second = module.weight.shape
    return (second, first) if isinstance(module, Conv1D) else (first, second)


def check_rank(setting: Setting, names: Sequence[str], ranks: Mapping[str, int], default: int, field: str = "r") -> None:
    """Raise TrainerError(InvalidSpec) where a rank is above that of the matrix it shall update."""
    modules = dict(setting.plain.model.named_modules())
    for name in names:
        rank, limit = ranks.get(name, default), min(shape_of(modules[name]))
        if rank > limit:
            raise TrainerError(
                Reason.INVALID_SPEC,
                f"rank {rank} is above that of {name}, a matrix of {' × '.join(map(str, shape_of(modules[name])))}: at most {limit}",
                where=setting.field(field),
            )


def check_divides(setting: Setting, names: Sequence[str], size: int, field: str, *, sides: Sequence[str]) -> None:
    """Raise TrainerError(InvalidSpec) where a size does not divide the inputs, or the outputs, of a module."""
    modules = dict(setting.plain.model.named_modules())
    for name in names:
        outputs, inputs = shape_of(modules[name])
        for side, width in (("inputs", inputs), ("outputs", outputs)):
            if side in sides and width % size:
                fitting = [number for number in range(1, min(width, 4096) + 1) if not width % number]
                near = sorted(fitting, key=lambda number: abs(number - size))[:3]
                raise TrainerError(
                    Reason.INVALID_SPEC,
                    f"{size} does not divide the {width} {side} of {name}: {', '.join(map(str, sorted(near)))} would",
                    where=setting.field(field),
                )


def check_frequencies(setting: Setting, names: Sequence[str], count: int) -> None:
    """Raise TrainerError(InvalidSpec) where a matrix has fewer entries than coefficients are asked for."""
    modules = dict(setting.plain.model.named_modules())
    for name in names:
        outputs, inputs = shape_of(modules[name])
        if count > outputs * inputs:
            raise TrainerError(
                Reason.INVALID_SPEC,
                f"{name} has {outputs * inputs} entries, fewer than {count} coefficients",
                where=setting.field("nFrequency"),
            )


def trained_whole(setting: Setting, asked: Sequence[str] | None = None) -> list[str]:
    """Modules that are trained whole beside an adapter: a classifier's head, poolers that the base lacks, and what the options ask for."""
    plain = setting.plain
    named = matching([name for name, _ in plain.model.named_modules() if name], asked or (), setting.field("modulesToSave"), what="module")
    tied = plain.model.get_output_embeddings() if hasattr(plain.model, "get_output_embeddings") else None
    for name in named:
        module = plain.model.get_submodule(name)
        shares = tied is not None and tied.weight is plain.model.get_input_embeddings().weight
        if shares and module in (tied, plain.model.get_input_embeddings()):
            raise TrainerError(
                Reason.INVALID_SPEC,
                f"{name} is tied to the model's {'input' if module is tied else 'output'} embeddings, and could not be saved beside the adapter "
                "as it was trained; use partial or full for it",
                where=setting.field("modulesToSave"),
            )
    if plain.head is not Head.CLASSIFICATION:
        return sorted(named)
    heads = {name.split(".", 1)[0] for name in plain.head_names}
    made = {name.rsplit(".", 2)[0] for name in plain.new if name not in plain.head_names}
    return sorted(heads | made | set(named))


def _nearest_first(pattern: str, names: Sequence[str]) -> list[str]:
    """The last names of modules, the most alike first."""
    endings = sorted({name.rsplit(".", 1)[-1] for name in names})
    last = pattern.rsplit(".", 1)[-1]
    return sorted(endings, key=lambda ending: -difflib.SequenceMatcher(None, last, ending).ratio())
