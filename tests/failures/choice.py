"""Which failures of real pods a session of tests takes: a few, by a seed that changes, since each costs half a minute."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import Final

POD_SEED: Final = "FINETUNE_FAILURES"
"""Environment variable: what the failures of real pods are drawn by."""
MOST: Final = 5


def chosen(costs: Mapping[str, int], seed: str, most: int = MOST) -> Collection[str]:
    """Names, drawn as long as they cost no more than this together; always the same for a seed, whatever the order."""
    names, taken = sorted(costs), set[str]()
    random.Random(seed).shuffle(names)
    for name in names:
        if costs[name] <= most - sum(costs[each] for each in taken):
            taken.add(name)
    return taken
