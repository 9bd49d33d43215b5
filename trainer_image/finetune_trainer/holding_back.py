"""How much of a stage's change the next one starts from: W⁰ + s·(W − W⁰), W⁰ what the stage started from, W what it ended with.

Only weights that the stage found there have such a difference. What was made for it from the seed (a new head, a pooler, rows of added tokens)
had nothing before that would mean anything, and is handed over as it was trained. `chosen` looks for the share on the next stage's validation
rows; the same weights give the same choice, so that a process that is killed before the hand-over is committed chooses as the one before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch

from finetune_api.constants import Reason
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.engine.collate import Collator, Rows
from finetune_trainer.engine.validation import validate
from finetune_trainer.errors import TrainerError
from finetune_trainer.modeling.base import Plain, load_plain, restore
from finetune_trainer.modeling.plain import inner_model, plain_weights
from finetune_trainer.modeling.stage_model import StageModel, fold_stack
from finetune_trainer.modeling.start import HEADS, Start, Tensors

SHARES: Final = (1.0, 0.75, 0.5, 0.25, 0.0)
"""What is tried where validation data choose; of equal losses the first."""


def weights_before(model: StageModel) -> Tensors:
    """What the stage started from, as a plain model's weights: fp32, frozen adapters folded in, without what was made for it."""
    plain = load_plain(model.start, model.head, labels=model.labels, added=model.added)
    if model.start.adapters:
        fold_stack(plain, model.start)
    return {name: tensor for name, tensor in plain_weights(plain.model).items() if name not in model.new}


def scaled(start: Start, model: StageModel, before: Tensors, share: float) -> Start:
    """The hand-over `start` of a stage with a share of its change. 1 is `start` itself; 0 leaves out what nothing is left of."""
    if share == 1:
        return start
    mixed = _mixed(start, model, before, share)
    if model.start.adapters:
        return mixed  # what it started from was no weight of the base
    weights = {name: tensor for name, tensor in mixed.weights.items() if name in model.start.weights or not _same(tensor, before.get(name))}
    own = mixed.heads.get(model.head, {})
    if model.head not in model.start.heads and all(_same(tensor, before.get(name)) for name, tensor in own.items()):
        return dataclasses.replace(
            mixed, weights=weights, heads={head: mixed.heads[head] for head in mixed.heads if head is not model.head}
        )
    return dataclasses.replace(mixed, weights=weights)


def shares_on_validation(
    start: Start,
    model: StageModel,
    before: Tensors,
    following: Stage,
    rows: Rows,
    collator: Collator,
    *,
    tokenizer: Any,
    device: torch.device,
    should_stop: Callable[[], bool],
    on_share: Callable[[int], None],
) -> dict[float, float]:
    """The loss of the next stage's validation rows at each share, before that stage trains. Raises Aborted; TrainerError(InvalidSpec) where
    its head would be a new one, whose loss says nothing."""
    plain = load_plain(start, HEADS[following.objective], tokenizer=tokenizer, added=model.added)
    if plain.new & set(plain.head_names):
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"stage {following.name} begins with a new head, and before that is trained its loss says nothing: write handOverScale",
            where=f"stage {model.stage.name}, handOverScaleBy",
            stage=model.stage.name,
        )
    plain.model.to(device)
    losses = {}
    for done, share in enumerate(SHARES):
        _put(plain, _mixed(start, model, before, share))
        found = validate(plain.model, rows, collator, batch_size=following.training.eval_rows, device=device, should_stop=should_stop)
        losses[share] = found["eval_loss"]
        on_share(done + 1)
    return losses


def best(losses: Mapping[float, float]) -> float:
    """The share with the lowest loss; of equal ones the largest. A loss that is no number is none."""
    return min(losses, key=lambda share: (not losses[share] < float("inf"), losses[share], -share))


def choice(losses: Mapping[float, float]) -> str:
    """A sentence for the log. Example: 0.5 of the change is handed over (loss 3.1 at 1, 2.9 at 0.5, 3.4 at 0)"""
    return f"{best(losses):g} of the change is handed over (loss {', '.join(f'{loss:.4f} at {share:g}' for share, loss in losses.items())})"


def _mixed(start: Start, model: StageModel, before: Tensors, share: float) -> Start:
    return dataclasses.replace(
        start,
        weights=dict(_parts(start.weights, model, before, share)),
        heads={
            head: dict(_parts(tensors, model, before, share)) if head is model.head else tensors for head, tensors in start.heads.items()
        },
    )


def _parts(tensors: Tensors, model: StageModel, before: Tensors, share: float) -> Iterator[tuple[str, torch.Tensor]]:
    rows = _rows_of_tokens(model) if model.added and not model.start.extended else set()
    for name, tensor in tensors.items():
        if name not in before:
            yield name, tensor
            continue
        # lerp gives both ends exactly; before + share * (tensor - before) would not.
        mixed = torch.lerp(before[name], tensor, share)
        if name in rows:
            mixed[list(model.added)] = tensor[list(model.added)]
        yield name, mixed


def _rows_of_tokens(model: StageModel) -> set[str]:
    """The weights with a row for each token, by their plain names."""
    inner = inner_model(model.module)
    modules = [module for module in (inner.get_input_embeddings(), inner.get_output_embeddings()) if module is not None]
    return {f"{name}.weight" for name, module in inner.named_modules() if any(module is one for one in modules)}


def _put(plain: Plain, start: Start) -> None:
    restore(plain.model, {**start.weights, **start.heads.get(plain.head, {})})


def _same(tensor: torch.Tensor, other: torch.Tensor | None) -> bool:
    return other is not None and torch.equal(tensor, other)
