"""Rows that bear marks of their class and their domain, models that know both, and what dann leaves of the second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.engine.collate import Batch, Collator
from finetune_trainer.engine.trainer import batch_logits
from finetune_trainer.guards.dann import class_heads, row_features
from tests.unit.engine.stage_run import train
from tests.unit.engine.tiny_models import FakeRows, model
from tests.unit.guards.probes import told
from tests.unit.guards.runs import guarded

ROWS, NEW_ROWS, KNOWN_ROWS = 6000, 4000, 2000
WITH_THE_CLASS: Final = 0.85
"""How often a confounder goes with its class where it is trained on; the third class has either as often."""
TRAINING: Final = {
    "optimizer": "adamw", "learningRate": 2e-3, "maxSteps": 200, "perDeviceTrainBatchSize": 80, "lrSchedulerType": "linear", "maxGradNorm": 1.0
}  # fmt: skip


class Marked(FakeRows):
    """A row's words: three say its class, three its domain (or confounder), four are drawn, all in places that are drawn; two answer by the class."""

    def __init__(self, count: int, *, seed: int, role: str = "domain", with_the_class: float = 0.5) -> None:
        super().__init__([12] * count)
        self.group_names = {role: ["forum", "paper"]}
        generator = np.random.default_rng(seed)
        shares = (with_the_class, 1 - with_the_class, 0.5)
        self.numbers = [int(generator.random() < shares[self.label(index)]) for index in range(count)]
        for index in range(count):
            words, places = generator.integers(20, 90, 12), generator.permutation(10)
            words[places[:3]] = 5 + self.label(index)
            words[places[3:6]] = 10 + self.numbers[index]
            words[10:] = 15 + self.label(index)
            self._tokens[index] = words.astype(np.int32)

    def groups(self, index: int) -> list[int]:
        return [self.numbers[index]]

    def supervised(self, index: int) -> npt.NDArray[np.bool_]:
        return np.arange(12) >= 10


@dataclass(frozen=True)
class Case:
    """A tiny model, what it learns, and what its features shall not tell."""

    kind: str
    objective: str
    role: str = "domain"

    def through(self, net: Any, rows: Marked, chosen: range) -> tuple[Batch, torch.Tensor, torch.Tensor]:
        """The batch of these rows, its features as the guard takes them, and its logits."""
        classified, kept = self.objective == "classification", []
        batch = Collator(Objective(self.objective), 0)(rows, chosen)
        if classified:
            handle = class_heads(net)[0].register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
        else:
            handle = net.base_model.register_forward_hook(lambda module, inputs, output: kept.append(output[0]))
        logits = batch_logits(net, batch, Objective(self.objective))
        handle.remove()
        return batch, row_features(kept[0], batch.lengths, last=classified), logits

    def start(self, seed: int) -> nn.Module:
        """What a stage starts from: a model whose features tell class and domain, as a pre-trained one's tell much of everything."""
        torch.manual_seed(seed)
        net: Any = model(self.kind)
        rows, head = Marked(KNOWN_ROWS, seed=5000 + seed), nn.Linear(32, 2)
        domains = torch.tensor(rows.numbers)
        with torch.no_grad():
            for parameter in net.parameters():  # the seed of `model` is fixed
                parameter += 0.02 * torch.randn_like(parameter)
        optimizer = torch.optim.AdamW([*net.parameters(), *head.parameters()], lr=2e-3)
        for first in range(0, 4 * KNOWN_ROWS, 40):
            chosen = range(first % KNOWN_ROWS, first % KNOWN_ROWS + 40)
            batch, features, logits = self.through(net, rows, chosen)
            optimizer.zero_grad()
            (functional.cross_entropy(logits, batch.targets) + functional.cross_entropy(head(features), domains[list(chosen)])).backward()
            optimizer.step()
        return net


CASES: Final = (
    Case("bert classifier", "classification"),
    Case("llama classifier", "classification"),
    Case("llama", "supervised"),
    Case("bert classifier", "classification", "confounder"),
)


@dataclass(frozen=True)
class Shown:
    """Of rows that were not trained on, in which the domain goes with no class: shares that are right."""

    task: float
    linear: float
    """A fresh linear probe."""
    layered: float | None = None
    """One with a hidden layer."""


def shown(folder: Path, case: Case, seed: int, *, layered: bool = False, strength: float | None = 1.0) -> tuple[Shown, Shown]:
    """What is told before and after a stage with the guard, or without."""
    net = case.start(seed)
    before = measured(case, net, seed, layered)
    rows = Marked(ROWS, seed=100 + seed, role=case.role, with_the_class=WITH_THE_CLASS if case.role == "confounder" else 0.5)
    guards = [] if strength is None else [{"type": "dann", "strength": strength}]
    train(folder, guarded(*guards, training=TRAINING, objective=case.objective), kind=case.kind, rows=rows, net=net, seed=seed)
    return before, measured(case, net, seed, layered)


def measured(case: Case, net: nn.Module, seed: int, layered: bool) -> Shown:
    rows = Marked(NEW_ROWS, seed=999 + seed)
    net.eval()
    with torch.no_grad():
        batch, features, logits = case.through(net, rows, range(NEW_ROWS))
    net.train()
    domains, half = torch.tensor(rows.numbers), NEW_ROWS // 2
    return Shown(
        float((logits.argmax(-1) == batch.targets).float().mean()),
        told(features, domains) / half,
        told(features, domains, hidden=64) / half if layered else None,
    )
