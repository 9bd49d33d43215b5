"""What tells a row's domain from its features, for dann: a kernel classifier that is solved anew at each step of the model.

The paper's is a network of one hidden layer that descends beside the model. A model outruns it, and is paid for features that tell the domain
the other way round; where domains are far apart it is certain, and then cross-entropy has no gradient to turn round. So here it is
one step behind and no more: the squared error between what it says and what is the case has its least value in closed form (kernel ridge
regression, the least-squares loss of Mao et al. 2017, arXiv 1611.04076), on the newest rows, and does not fade while a row is told. The kernel is half linear,
so that the means of the domains meet, and half Gaussian, for what a network would find beside. Features are whitened, since a model hides the
domain in directions in which they hardly vary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from torch.nn import functional

ROWS: Final = 128
"""The newest, which it is solved on: older ones tell of a model that is no more. Two steps' where these are more, but not above MOST."""
MOST: Final = 1024
RIDGE: Final = 1.0
"""Of the variance of whitened features: about two fifths of what the rows say in one direction is believed."""
FLOOR: Final = 1e-4
"""Directions with less than this share of the largest variance are taken to have it."""
RAREST: Final = 0.02
"""The least variance of domains that an error is measured by: of two, one of which one row in a hundred is; else a rare one had all the say."""
MEMORY: Final = 0.9
"""What a step leaves of the running accuracy."""


@dataclass(frozen=True)
class _Solved:
    """What the newest rows came to."""

    mean: torch.Tensor
    whitening: torch.Tensor
    """(H, K)"""
    size: torch.Tensor
    """The mean squared length of a whitened row."""
    rows: torch.Tensor
    """(N, K), whitened."""
    classes: torch.Tensor
    weights: torch.Tensor
    """(N, domains)"""


class Discriminator(nn.Module):
    """Says how probable each domain is; with classes, it is told a row's class, and says what features tell beside it."""

    steps: torch.Tensor
    accuracy: torch.Tensor
    counts: torch.Tensor

    def __init__(self, domains: int, *, classes: int = 0) -> None:
        super().__init__()
        self._classes = classes
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))
        self.register_buffer("accuracy", torch.zeros(()))
        self.register_buffer("counts", torch.zeros(max(classes, 1), domains, dtype=torch.float64))
        self._newest: dict[str, torch.Tensor] = {}
        self._solved: _Solved | None = None

    def forward(self, features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """(B, H) float32 features, (B,) classes, which are looked at where it is told them → (B, domains) shares, by and large from 0 to 1."""
        guessed, solved = self._guessed(classes), self._solved
        if solved is None:
            return guessed
        return guessed + self._kernel((features - solved.mean) @ solved.whitening, classes, solved) @ solved.weights

    def losses(self, features: torch.Tensor, domains: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """(B,) squared errors, none above that of guessing by the domains' shares (in the class), over the mean one of guessing.

        What is told worse than by guessing has no gradient, or the model would be paid, without bound, for features that tell the domain the
        other way round.
        """
        if self._solved is None:
            return torch.ones_like(features[:, 0]) + 0 * features[:, 0]
        shares = self._shares()
        variance = (1 - shares.square().sum(1)) @ self.counts.sum(1) / self.counts.sum().clamp_min(1)
        told = self._as_shares(domains)
        error = (self(features, classes) - told).square().sum(1)
        guess = (self._guessed(classes) - told).square().sum(1)
        return torch.minimum(error, guess) / variance.clamp_min(RAREST).to(error)

    def learn(self, features: torch.Tensor, domains: torch.Tensor, classes: torch.Tensor) -> None:
        """Learn from a step's rows and those before them, once they have shown how much is told already."""
        if not torch.isfinite(features.sum()):
            return  # the loop refuses such a step, or a guard leaves it out
        self._observe(features, domains, classes)
        given = {"features": features, "domains": domains, "classes": classes}
        kept = min(max(ROWS, 2 * len(features)), MOST)
        self._newest = {name: torch.cat([self._newest[name], new] if self._newest else [new])[-kept:] for name, new in given.items()}
        self._solve()

    def chance(self) -> float:
        """The share of the rows so far that is told by always saying the most frequent domain (of the class)."""
        return float(self.counts.amax(1).sum() / self.counts.sum().clamp_min(1))

    def _solve(self) -> None:
        features, domains, classes = self._newest["features"], self._newest["domains"], self._newest["classes"]
        mean = features.mean(0)
        _, lengths, directions = torch.linalg.svd(features - mean, full_matrices=False)
        variances = lengths.square() / len(features)
        whitening = directions.T / (variances + FLOOR * variances.amax()).clamp_min(1e-12).sqrt()
        rows = (features - mean) @ whitening
        size = rows.square().sum(1).mean().clamp_min(1e-6)
        unsolved = _Solved(mean, whitening, size, rows, classes, rows.new_zeros(len(rows), self.counts.shape[1]))
        ridge = RIDGE * len(rows) / size * torch.eye(len(rows), device=rows.device)
        left = self._as_shares(domains) - self._guessed(classes)
        weights = torch.linalg.solve(self._kernel(rows, classes, unsolved) + ridge, left)
        self._solved = _Solved(mean, whitening, size, rows, classes, weights)

    def _kernel(self, rows: torch.Tensor, classes: torch.Tensor, solved: _Solved) -> torch.Tensor:
        """(B, K) whitened rows → (B, N): half linear, half Gaussian. With classes, half of either is for rows of the same class alone."""
        product = rows @ solved.rows.T
        distance = (rows.square().sum(1)[:, None] + solved.rows.square().sum(1) - 2 * product).clamp_min(0)
        alike = (product + solved.size * torch.exp(-distance / (2 * solved.size))) / (2 * solved.size)
        return alike * (1 + (classes[:, None] == solved.classes).to(alike)) / 2 if self._classes else alike

    def _shares(self) -> torch.Tensor:
        """(classes or 1, domains): of the rows so far."""
        counts = torch.where(self.counts.sum(1, keepdim=True) > 0, self.counts, self.counts.sum(0))  # of a class without rows: as in all
        return counts / counts.sum(1, keepdim=True).clamp_min(1)

    def _guessed(self, classes: torch.Tensor) -> torch.Tensor:
        return self._shares().float()[classes if self._classes else torch.zeros_like(classes)]

    def _as_shares(self, domains: torch.Tensor) -> torch.Tensor:
        return functional.one_hot(domains, self.counts.shape[1]).float()

    def _observe(self, features: torch.Tensor, domains: torch.Tensor, classes: torch.Tensor) -> None:
        told = (self(features, classes).argmax(-1) == domains).float().mean()
        self.steps += 1
        self.accuracy += max(1 - MEMORY, 1 / float(self.steps)) * (told - self.accuracy)
        rows = classes if self._classes else torch.zeros_like(domains)
        self.counts.index_put_((rows, domains), torch.ones_like(rows, dtype=torch.float64), accumulate=True)

    def remembered(self) -> dict[str, torch.Tensor]:
        """All that it goes on from: running figures and the newest rows."""
        found = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        return found | {f"newest/{name}": tensor.clone() for name, tensor in self._newest.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `remembered`."""
        self.load_state_dict({name: tensor for name, tensor in tensors.items() if "/" not in name})
        device = self.counts.device
        self._newest = {
            name.removeprefix("newest/"): tensor.clone().to(device) for name, tensor in tensors.items() if name.startswith("newest/")
        }
        if self._newest:
            self._solve()
