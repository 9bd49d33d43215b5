"""The module that a stage trains, and what is saved of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.methods.layers import Weights
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.engine.precision import Precision, apply_precision
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Examples, Setting
from finetune_trainer.methods.peft_models import TRAINED
from finetune_trainer.methods.registry import method_of
from finetune_trainer.methods.stacks import FROZEN, TAKEN, leaves_a_residual, lora_layers, taken_out, with_frozen
from finetune_trainer.modeling.base import Plain, load_plain, restore
from finetune_trainer.modeling.few_bits import compute_in, entries
from finetune_trainer.modeling.plain import inner_model, plain_weights
from finetune_trainer.modeling.quantised import figures, known, quantise_again
from finetune_trainer.modeling.start import HEADS, Head, Start
from finetune_trainer.modeling.trained import trained_parts


@dataclass
class StageModel:
    """A stage's model. `module` is what the Trainer trains: a plain model, or PEFT's around it."""

    module: nn.Module
    stage: Stage
    head: Head
    start: Start
    labels: list[str] | None
    precision: Precision
    new: frozenset[str] = frozenset()
    """Weights that were made from the seed, by plain names."""
    added: tuple[int, ...] = ()
    """Ids of added tokens."""
    taken: dict[str, torch.Tensor] = field(default_factory=dict)
    """What the initialisation took out of the base."""

    def trainable_names(self) -> list[str]:
        """Names of the trained parameters, in the module's order."""
        return [name for name, parameter in self.module.named_parameters() if parameter.requires_grad]

    def trainable_state(self) -> dict[str, torch.Tensor]:
        """All that a checkpoint must hold to restore the module: views of the trained parameters (and what was taken out of the base)."""
        state = {name: parameter.detach() for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        return state | {f"{TAKEN}{name}": tensor for name, tensor in self.taken.items()}

    def load_trainable_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore a state of the same structure, bit for bit. Raises TrainerError(CheckpointInvalid) where names or shapes differ."""
        own = self.trainable_state()
        differing = sorted(own.keys() ^ state.keys()) or sorted(name for name in own if own[name].shape != state[name].shape)
        if differing:
            raise TrainerError(
                Reason.CHECKPOINT_INVALID,
                f"it was saved from a model with other trained weights ({', '.join(differing[:3])} differ)",
                stage=self.stage.name,
            )
        self._load(state)

    def summary(self) -> dict[str, Any]:
        """For the log and the report: counts of parameters, and what the stage started from."""
        sizes = {name: (entries(parameter), parameter.requires_grad) for name, parameter in self.module.named_parameters()}
        archived = sorted(head for head in self.start.heads if head is not self.head)
        return {
            "startsFrom": self.start.describe(),
            "head": str(self.head),
            "archivedHeads": [str(head) for head in archived],
            "newWeights": sorted(self.new),
            "parameters": sum(size for size, _ in sizes.values()),
            "trainedParameters": sum(size for size, trained in sizes.values() if trained),
            **({"trained": parts} if (parts := self._parts()) else {}),
            **figures(inner_model(self.module)),
        }

    def trains(self) -> str:
        """What it trains, as a sentence."""
        facts = self.summary()
        trained, total = facts["trainedParameters"], facts["parameters"]
        parts = ", ".join(self._parts())
        kept = "" if self.stage.method.weights is Weights.FP32 else f", kept in {self.stage.method.weights} with stochastic rounding"
        return f"trains {trained:,} of {total:,} parameters ({100 * trained / total:.3g} %){f': {parts}' if parts else ''}{kept}"

    def _parts(self) -> list[str]:
        """Which parameters of the plain model are trained, where only some are."""
        return [] if self.stage.method.row.adapter else trained_parts(dict(self.module.named_parameters()))

    def adopt(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over the adapter of the stage before (`continue`). Heads and token rows came with the start; a module that is new here stays new."""
        own = self.trainable_state()
        self._load({name: tensor for name, tensor in state.items() if name in own and ".modules_to_save." not in name})

    def _load(self, state: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            self._load_taken({name.removeprefix(TAKEN): tensor for name, tensor in state.items() if name.startswith(TAKEN)})
            parameters = dict(self.module.named_parameters())
            for name, tensor in state.items():
                if not name.startswith(TAKEN):
                    parameters[name].copy_(tensor)

    def _load_taken(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Another machine's decomposition may differ in signs and last bits: give the base back what ours took, and take what was saved."""
        model, changed = inner_model(self.module), []
        quantised = known(model)
        for name, layer in lora_layers(self.module).items():
            keys = f"{name}.A", f"{name}.B"
            if not saved.keys() >= set(keys) or all(torch.equal(saved[key], self.taken[key]) for key in keys):
                continue
            ours, theirs = ({key: source[key] for key in keys} for source in (self.taken, saved))
            self.taken |= {key: tensor.cpu().clone() for key, tensor in theirs.items()}
            if quantised is not None:
                changed.append(name)
                continue
            change = layer.scaling[TRAINED] * (ours[keys[1]] @ ours[keys[0]] - theirs[keys[1]] @ theirs[keys[0]])
            weight = layer.get_base_layer().weight
            weight += (change.T if layer.fan_in_fan_out else change).to(weight)
        if quantised is not None and changed:
            exact = quantised.exact()  # loads the base again: once, when all that was taken is known
            for name in changed:
                quantise_again(model, name, exact[f"{name}.weight"])


def build_stage_model(
    *,
    start: Start,
    stage: Stage,
    spec: FineTuneJobSpec,
    labels: Sequence[str] | None,
    tokenizer: Any,
    precision: Precision,
    seed: int,
    examples: Examples | None = None,
    remembered: Mapping[str, torch.Tensor] | None = None,
) -> StageModel:
    """Build what a stage trains, on the CPU. The same arguments give the same bytes, and the caller's random state is left alone.

    examples: the stage's rows, for a method that begins from them. remembered: the tensors of the method's course in the checkpoint that the
    stage goes on from, by which it begins as it began.

    Raises TrainerError (ModelUnsupported, ModelUnsafe, InvalidSpec).
    """
    head = HEADS[stage.objective]
    where = f"spec.stages[{[other.name for other in spec.stages].index(stage.name)}]"
    residual = leaves_a_residual(stage)
    if residual:
        # The base's residual must not be rounded: what was taken out of it is in the adapter to the last bit.
        precision = dataclasses.replace(precision, frozen=torch.float32)
    added = added_ids(tokenizer, spec)
    plain = load_plain(
        start,
        head,
        labels=labels,
        tokenizer=tokenizer,
        added=added,
        dtype=precision.trainable if stage.method.row.exact else torch.float32 if start.weights else precision.frozen,
        dropout=stage.training.dropout,
        seed=seed,
        where=where,
    )
    if residual and any(adapter.dora for adapter in start.adapters):
        start = fold_stack(plain, start)
    setting = Setting(plain, stage, where, start, added, tokenizer, seed, examples, remembered or {})
    module = method_of(stage.method.type).apply(setting)
    result = StageModel(
        module=module,
        stage=stage,
        head=head,
        start=start,
        labels=list(labels) if labels and head is Head.CLASSIFICATION else None,
        precision=precision,
        new=plain.new,
        added=tuple(added),
        taken=taken_out(module) if residual else {},
    )
    if (quantised := known(inner_model(module))) is not None:
        quantised.taken = result.taken  # one record: what another machine took replaces it
    _set_types(module, precision)
    if start.trained is not None:
        result.adopt(start.trained)
    return result


def fold_stack(plain: Plain, start: Start) -> Start:
    """Fold stacked adapters into the weights: a DoRA's scale is over the base weight, and PiSSA is about to take a part of that away."""
    module = with_frozen(plain.model, start.adapters)
    weights = plain_weights(module)
    module.base_model.unload()
    restore(plain.model, weights)
    prefix = f"{plain.model.base_model_prefix}."
    low_rank = {f"{name}.weight" for adapter in start.adapters for name in adapter.targets}
    changed = {name: tensor for name, tensor in weights.items() if name in low_rank and name.startswith(prefix)}
    return dataclasses.replace(start, weights={**start.weights, **changed}, adapters=())


def _set_types(module: nn.Module, precision: Precision) -> None:
    """What is trained in its type, what is not in the frozen type, but for stacked adapters: they are small, and rounding them would show."""
    stacked = [(parameter, parameter.data) for name, parameter in module.named_parameters() if f".{FROZEN}" in name]
    apply_precision(module, precision)
    compute_in(module, precision.autocast or precision.trainable)
    for parameter, data in stacked:
        parameter.data = data


def added_ids(tokenizer: Any, spec: FineTuneJobSpec) -> list[int]:
    """Ids of the tokens that the manifest adds: their rows are trained in every stage."""
    return sorted(tokenizer.convert_tokens_to_ids(token) for token in spec.tokenizer.add_tokens) if spec.tokenizer.add_tokens else []
