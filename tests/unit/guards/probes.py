"""Probes: what a fresh classifier tells of the domain from features."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import nn
from torch.nn import functional

NORMAL = NormalDist().inv_cdf(0.975)


def told(features: torch.Tensor, domains: torch.Tensor, *, hidden: int = 0) -> int:
    """Of how many rows of the second half a classifier that learned from the first half tells the domain.

    Linear: logistic regression to its end on features that are scaled to mean 0 and deviation 1, with L2 1, as scikit-learn does it by default.
    With a hidden layer: by AdamW, ended where the last sixth of the first half has its least loss.
    """
    half, domains = len(features) // 2, domains.long()
    scaled = (features - features[:half].mean(0)) / (features[:half].std(0) + 1e-9)
    probe = _layered(scaled[:half], domains[:half], hidden) if hidden else _linear(scaled[:half], domains[:half])
    with torch.no_grad():
        return int((probe(scaled[half:]).argmax(-1) == domains[half:]).sum())


def interval(right: int, count: int) -> tuple[float, float]:
    """95 %, by Wilson, of a share."""
    share, square = right / count, NORMAL**2 / count
    middle, width = (share + square / 2) / (1 + square), NORMAL / (1 + square) * (share * (1 - share) / count + square / count / 4) ** 0.5
    return middle - width, middle + width


def _linear(rows: torch.Tensor, domains: torch.Tensor) -> nn.Module:
    probe = nn.Linear(rows.shape[1], int(domains.max()) + 1)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(probe(rows), domains) + probe.weight.square().sum() / (2 * len(rows))
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return probe


def _layered(rows: torch.Tensor, domains: torch.Tensor, hidden: int) -> nn.Module:
    learned = len(rows) * 5 // 6
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        probe = nn.Sequential(nn.Linear(rows.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, int(domains.max()) + 1))
    optimizer = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=0.05)
    best, kept = float("inf"), probe.state_dict()
    for _ in range(20):
        for chosen in torch.randperm(learned, generator=generator).split(128):
            optimizer.zero_grad()
            functional.cross_entropy(probe(rows[chosen]), domains[chosen]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(functional.cross_entropy(probe(rows[learned:]), domains[learned:]))
        if loss < best:
            best, kept = loss, {name: tensor.clone() for name, tensor in probe.state_dict().items()}
    probe.load_state_dict(kept)
    return probe
