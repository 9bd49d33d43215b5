"""Parameter groups with learning rates and weight decays of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch


def split_groups(
    optimizer: torch.optim.Optimizer, factors: Mapping[int, float], decays: Mapping[int, float], decayed: Collection[int]
) -> None:
    """Split the groups of a fresh optimizer so that each parameter learns at its factor of the rate, and decays as it shall; those with the
    declared rate come first.

    factors, decays: by `id(parameter)`, of parameters that have one. decayed: of those that decay at all (no biases, no norms).
    """
    if not factors and not decays:
        return
    groups = []
    for group in optimizer.param_groups:
        shares: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            key = id(parameter)
            decay = decays[key] if key in decays and key in decayed else group["weight_decay"]
            shares.setdefault((factors.get(key, 1.0), decay), []).append(parameter)
        groups += [
            (factor, {**group, "params": own, "lr": factor * group["lr"], "weight_decay": decay}) for (factor, decay), own in shares.items()
        ]
    optimizer.param_groups[:] = [group for _, group in sorted(groups, key=lambda entry: (entry[0] != 1.0, -entry[0]))]
