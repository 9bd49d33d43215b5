"""Every cell of the support table: what is allowed trains, is published and handed over exactly; what is refused as impossible fails."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.v1alpha1.method import TABLE, MethodType
from finetune_api.v1alpha1.methods.qlora import Quantization
from finetune_api.v1alpha1.objective import Objective
from finetune_api.v1alpha1.stage import HandOver
from finetune_api.v1alpha1.support import Because, Continues, Family
from finetune_trainer import handover
from finetune_trainer.engine.collate import Batch
from finetune_trainer.engine.trainer import batch_logits, batch_loss
from finetune_trainer.errors import TrainerError
from finetune_trainer.export import adapter, verify
from finetune_trainer.export.plain_model import write_model
from finetune_trainer.measuring import folded_model
from finetune_trainer.modeling.base import restore
from finetune_trainer.modeling.plain import plain_weights
from finetune_trainer.modeling.sketch import family_of, method_problems, sketch
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import HEADS, Start
from finetune_trainer.tokenizer import load_tokenizer
from tests.unit.methods.families import ALL
from tests.unit.methods.table import SMALL, method, spec
from tests.unit.models.cases import build

Cell = tuple[MethodType, Objective, Family, Quantization | None]
_TIED: set[Family] = {Family.GPT2, Family.LLAMA, Family.QWEN}
PROBE = verify.Probe.of_tokens([[5, 6, 7, 8, 9], [10, 11, 12]], pad=3)


def exists(cell: Cell) -> bool:
    """Whether the architecture has such a head at all: an encoder masks, a decoder continues; and a tied head is none of its own."""
    kind, objective, family, _ = cell
    encoder = family is Family.BERT
    if objective is Objective.MASKED_LANGUAGE_MODELING:
        return encoder
    if objective is Objective.CLASSIFICATION:
        return True
    return not encoder and not (kind is MethodType.HEAD_ONLY and family in _TIED)


def crossed() -> Iterator[Cell]:
    """Each method with everything; one that quantises with each kind of that."""
    for kind, objective, family in itertools.product(MethodType, Objective, Family):
        yield from ((kind, objective, family, quantization) for quantization in TABLE[kind].quantizations or (None,))


def cells() -> Iterator[Cell]:
    """All of them, or enough that each method, with each kind of quantisation, meets each family and each objective; refused ones always."""
    every = [cell for cell in crossed() if exists(cell)]
    met: set[tuple[MethodType, object]] = set()
    for cell in sorted(every, key=lambda cell: (cell[0], (list(Family).index(cell[2]) + list(Objective).index(cell[1])) % 4)):
        kind, objective, family, quantization = cell
        pairs = {(kind, objective, quantization), (kind, family, quantization)}
        if ALL or TABLE[kind].refusal(objective, family) is not None or not pairs <= met:
            met |= pairs
            yield cell


CELLS = list(cells())
ALLOWED = [cell for cell in CELLS if TABLE[cell[0]].refusal(cell[1], cell[2]) is None]
IMPOSSIBLE = [cell for cell in CELLS if (found := TABLE[cell[0]].refusal(cell[1], cell[2])) and found.because is Because.IMPOSSIBLE]


def name(cell: Cell) -> str:
    return " ".join(part for part in cell if part)


def asked(cell: Cell) -> dict[str, Any]:
    """The manifest's method."""
    kind, *_, quantization = cell
    return method(kind, **SMALL[kind], quantization=str(quantization)) if quantization else method(kind)


def learn(model: StageModel, objective: Objective, steps: int = 2) -> list[float]:
    """Follow the gradient a few times, as the engine computes it."""
    ids, classes = torch.arange(4, 36).reshape(2, 16), objective is Objective.CLASSIFICATION
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    where = torch.zeros(0, dtype=torch.int64) if classes else torch.tensor([3, 5, 17, 20])
    targets = torch.tensor([0, 1]) if classes else torch.tensor([7, 8, 9, 10])
    rows = torch.arange(2) if classes else torch.tensor([0, 0, 1, 1])
    batch = Batch(inputs, where, targets, lengths=torch.tensor([16, 16]), rows=rows)
    optimizer = torch.optim.AdamW([parameter for parameter in model.module.parameters() if parameter.requires_grad], lr=1e-2)
    model.module.train()
    losses = []
    for _ in range(steps):
        loss = batch_loss(batch_logits(model.module, batch, objective), batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("cell", ALLOWED, ids=name)
def test_an_allowed_cell_trains_and_its_result_is_what_was_trained(cell: Cell, family: Callable[[Family], Path], tmp_path: Path) -> None:
    kind, objective, architecture, _ = cell
    folder, row, how = family(architecture), TABLE[kind], asked(cell)
    alone = spec((how, objective, None))
    assert list(method_problems(folder, alone.stages, load_tokenizer(folder, alone))) == []
    model = build(Start.base(folder), alone, 0)
    before = {name: tensor.clone() for name, tensor in model.trainable_state().items()}
    losses = learn(model, objective)
    moved = [name for name, tensor in model.trainable_state().items() if not torch.equal(before[name], tensor)]
    assert all(torch.isfinite(torch.tensor(losses)))
    assert sorted(moved) == sorted(before), "everything that shall be trained has a gradient"
    trained = PROBE.logits(model.module)
    # A quantised base gives way to the one in its files.
    wanted = PROBE.logits(folded_model(model, None)) if row.quantizations else trained
    if row.adapter:
        place = tmp_path / "adapter"
        place.mkdir()
        adapter.write_adapter(place, model, adapter.BaseReference(str(folder)), None)
        assert verify.apart(wanted, PROBE.logits(verify.load_adapter(place, folder, model))) < verify.TOLERANCE
    if row.folds:
        write_model(tmp_path / "merged", model, plain_weights(model.module), None)
        assert verify.apart(wanted, PROBE.logits(verify.load_merged(tmp_path / "merged", model.head))) < verify.TOLERANCE
    if row.merges:
        following = build(handover.hand_over(model, HandOver.MERGE), spec((method("full"), objective, None)), 0)
        assert verify.apart(wanted, PROBE.logits(following.module)) < 1e-5
    if row.continues is not Continues.NOTHING:
        start = handover.hand_over(model, HandOver.CONTINUE)
        # A stage has a seed of its own: what is drawn must not differ.
        following = build(start, spec((how, objective, "continue"), (how, objective, None)), 1, seed=2)
        assert verify.apart(trained, PROBE.logits(following.module)) < 1e-5


@pytest.mark.parametrize("cell", IMPOSSIBLE, ids=name)
def test_a_cell_that_is_called_impossible_fails(cell: Cell, family: Callable[[Family], Path]) -> None:
    _, objective, architecture, _ = cell
    with pytest.raises((TrainerError, KeyError, TypeError, ValueError)):
        learn(build(Start.base(family(architecture)), spec((asked(cell), objective, None)), 0), objective)


@pytest.mark.parametrize("kind", [kind for kind, row in TABLE.items() if not row.folds])
def test_what_cannot_be_merged_is_no_part_of_the_weights(kind: MethodType, llama: Path) -> None:
    """Tried by folding it all the same, which the hand-over and the output refuse."""
    model = build(Start.base(llama), spec((method(kind), Objective.SUPERVISED, None)), 0)
    learn(model, Objective.SUPERVISED)
    base = build(Start.base(llama), spec((method("full"), Objective.SUPERVISED, None)), 0)
    trained, untrained = PROBE.logits(model.module), PROBE.logits(base.module)
    assert verify.apart(trained, untrained) > 10 * verify.TOLERANCE, "it learned something"
    restore(base.module, plain_weights(model.module))
    assert verify.apart(untrained, PROBE.logits(base.module)) < 1e-6, "and nothing of it is in the weights"


@pytest.mark.parametrize("architecture", Family)
def test_a_refused_cell_is_refused_before_anything_is_loaded(architecture: Family, family: Callable[[Family], Path]) -> None:
    folder = family(architecture)
    refused = [cell for cell in crossed() if cell[2] is architecture and exists(cell)]
    refused = [cell for cell in refused if TABLE[cell[0]].refusal(cell[1], cell[2])]
    assert refused, "each family has some"
    stages = [spec((method(kind), objective, None)).stages[0] for kind, objective, *_ in refused]
    problems = list(method_problems(folder, stages, None))
    assert [problem.where for problem in problems] == [f"spec.stages[{index}].method.type" for index in range(len(stages))]


@pytest.mark.parametrize("architecture", Family)
def test_a_family_is_known_by_its_configuration(architecture: Family, family: Callable[[Family], Path]) -> None:
    plain = sketch(family(architecture), HEADS[Objective.CLASSIFICATION], where="spec.stages[0]")
    assert family_of(plain) is architecture
    assert all(parameter.is_meta for parameter in plain.model.parameters())
