"""Parameter groups with learning rates of their own."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def split_by_rate(optimizer: torch.optim.Optimizer, factors: Mapping[int, float]) -> None:
    """Split the groups of a fresh optimizer so that each parameter learns at its factor of the rate; those with the declared rate come first.

    factors: `id(parameter)` → factor, 1 where there is none.
    """
    if not factors:
        return
    groups = []
    for group in optimizer.param_groups:
        shares: dict[float, list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            shares.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
        groups += [(factor, {**group, "params": own, "lr": factor * group["lr"]}) for factor, own in shares.items()]
    optimizer.param_groups[:] = [group for _, group in sorted(groups, key=lambda entry: (entry[0] != 1.0, -entry[0]))]
