"""What tells a row's domain from its features, for dann: a classifier of one hidden layer that keeps up with the model.

The paper's has one update a step, and that is not enough: a model outruns it, and is paid for features that tell the domain the other way round,
which any fresh probe reads. So there are several updates, at a rate of its own, on the rows of the newest steps rather than on a batch that is
soon known by heart; its gradient over the features is held down (R1: Mescheder, Geiger and Nowozin 2018, arXiv 1801.04406), without
which the two circle round each other; and features are normalised by running figures, else a model hides the domain by making it small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn
from torch.nn import functional

LEARNING_RATE: Final = 3e-3
BETAS: Final = (0.5, 0.9)
UPDATES: Final = 5
"""A step of the model."""
ROWS: Final = 256
"""The newest, which an update learns from."""
PENALTY: Final = 0.1
"""R1's weight."""
WIDTH: Final = 128
MEMORY: Final = 0.9
"""What a step leaves of the running figures."""
MOMENTS: Final = ("exp_avg", "exp_avg_sq", "step")


class Discriminator(nn.Module):
    """Logits of the domains; with classes, it is told a row's class."""

    mean: torch.Tensor
    square: torch.Tensor
    steps: torch.Tensor
    accuracy: torch.Tensor
    counts: torch.Tensor

    def __init__(self, width: int, domains: int, *, classes: int = 0) -> None:
        super().__init__()
        self._classes = classes
        self.layers = nn.Sequential(nn.Linear(width + classes, WIDTH), nn.ReLU(), nn.Linear(WIDTH, domains))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("square", torch.ones(width))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))
        self.register_buffer("accuracy", torch.zeros(()))
        self.register_buffer("counts", torch.zeros(max(classes, 1), domains, dtype=torch.float64))
        self.requires_grad_(False)
        self._optimizer = torch.optim.Adam(self.layers.parameters(), lr=LEARNING_RATE, betas=BETAS)
        self._newest: dict[str, torch.Tensor] = {}

    def forward(self, features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """(B, H) float32 features, (B,) classes, which are looked at where it is told them → (B, domains) logits."""
        return self._told(self._normalised(features), classes)

    def learn(self, features: torch.Tensor, domains: torch.Tensor, classes: torch.Tensor) -> None:
        """Learn from a step's rows and those before them, once they have shown how much is told already."""
        if not torch.isfinite(features.sum()):
            return  # a step that the loop refuses, or a guard leaves out
        self._observe(features, domains, classes)
        given = {"features": features, "domains": domains, "classes": classes}
        self._newest = {name: torch.cat([self._newest[name], new] if self._newest else [new])[-ROWS:] for name, new in given.items()}
        self.layers.requires_grad_(True)
        for _ in range(UPDATES):
            self._optimizer.zero_grad()
            self._loss().backward()
            self._optimizer.step()
        self._optimizer.zero_grad()
        self.layers.requires_grad_(False)

    def chance(self) -> float:
        """The share of the rows so far that is told by always saying the most frequent domain (of the class)."""
        return float(self.counts.amax(1).sum() / self.counts.sum().clamp_min(1))

    def _normalised(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.mean) / (self.square - self.mean.square()).clamp_min(1e-8).sqrt()

    def _told(self, normalised: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        known = functional.one_hot(classes, self._classes).to(normalised) if self._classes else normalised[:, :0]
        logits: torch.Tensor = self.layers(torch.cat([normalised, known], -1))
        return logits

    def _loss(self) -> torch.Tensor:
        normalised = self._normalised(self._newest["features"]).requires_grad_(True)
        log_p = self._told(normalised, self._newest["classes"]).log_softmax(-1).gather(1, self._newest["domains"][:, None])
        (slope,) = torch.autograd.grad(log_p.sum(), normalised, create_graph=True)
        return PENALTY / 2 * slope.square().sum(1).mean() - log_p.mean()

    def _observe(self, features: torch.Tensor, domains: torch.Tensor, classes: torch.Tensor) -> None:
        told = (self(features, classes).argmax(-1) == domains).float().mean()
        self.steps += 1
        share = max(1 - MEMORY, 1 / float(self.steps))
        for running, now in ((self.accuracy, told), (self.mean, features.mean(0)), (self.square, features.square().mean(0))):
            running += share * (now - running)
        rows = classes if self._classes else torch.zeros_like(domains)
        self.counts.index_put_((rows, domains), torch.ones_like(rows, dtype=torch.float64), accumulate=True)

    def remembered(self) -> dict[str, torch.Tensor]:
        """All that it goes on from: weights, running figures, the newest rows, and its optimizer's moments."""
        found = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        found |= {f"newest/{name}": tensor.clone() for name, tensor in self._newest.items()}
        for name, parameter in self.named_parameters():
            state = self._optimizer.state.get(parameter, {})
            found |= {f"{name}/{moment}": state[moment].clone() for moment in MOMENTS if moment in state}
        return found

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `remembered`."""
        self.load_state_dict({name: tensor for name, tensor in tensors.items() if "/" not in name})
        device = self.mean.device
        self._newest = {name.removeprefix("newest/"): tensor.to(device) for name, tensor in tensors.items() if name.startswith("newest/")}
        for name, parameter in self.named_parameters():
            if f"{name}/step" in tensors:
                moments = {moment: tensors[f"{name}/{moment}"] for moment in MOMENTS}
                self._optimizer.state[parameter] = {
                    moment: value if moment == "step" else value.to(device) for moment, value in moments.items()
                }
