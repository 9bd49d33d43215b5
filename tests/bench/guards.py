"""What a step with a guard costs: `python -m tests.bench.guards [CASE …] [--repeats N]`.

Prints CPU seconds of a step with each guard over those of a step without, the median of neighbours in time: the arms take turns in one process,
on one thread. Models have random weights in the real shapes. Exit code 1 says that a ratio is above its target.
"""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from functools import partial
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers

from tests.bench.arms import Case, Measured, ours
from tests.bench.throughput import lengths, middle, with_lora

NONE = "none"
GUARDS: dict[str, list[dict[str, Any]]] = {
    NONE: [],
    "l2sp": [{"type": "l2sp", "strength": 0.01}],
    "kl": [{"type": "kl", "strength": 0.1}],
    "ewc": [{"type": "ewc", "strength": 100, "samples": 2}],
    "mixout": [{"type": "mixout", "probability": 0.1}],
    "lossSpike": [{"type": "lossSpike", "action": "skip"}],
}
TARGETS = {"l2sp": 1.1, "kl": 1.6, "ewc": 1.15}
CASES = {
    case.name: case
    for case in (
        Case("8x512-full", middle, lengths(256, 512, 512), 0.0, 8192, 4, 512, 1, 4),
        Case("8x512-lora", partial(with_lora, middle), lengths(256, 512, 512), 0.0, 8192, 4, 512, 1, 4),
    )
}


def fits(case: Case, guard: str) -> bool:
    """Whether the guard works with the case's method."""
    return guard != "mixout" or not case.name.endswith("lora")


def measure(case: Case, repeats: int) -> dict[str, list[Measured]]:
    """Run the arms by turns; every second round in the opposite order, so that none always comes first."""
    names = [name for name in GUARDS if fits(case, name)]
    results: dict[str, list[Measured]] = {name: [] for name in names}
    for number in range(repeats):
        for name in names if number % 2 == 0 else reversed(names):
            results[name].append(ours(case, guards=GUARDS[name]))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="default: all")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    dear = False
    print(f"{'case':14} {'guard':10} {'ratio':>7} {'range':>15} {'target':>7}   CPU seconds a step: with, without", flush=True)
    for name in options.cases or CASES:
        case = CASES[name]
        results = measure(case, options.repeats)
        for guard, found in results.items():
            if guard == NONE:
                continue
            ratios = [a.cpu / b.cpu for a, b in zip(found, results[NONE], strict=True)]
            ratio, goal = median(ratios), TARGETS.get(guard)
            dear = dear or (goal is not None and ratio > goal)
            seconds = [median(measured.cpu for measured in results[side]) / case.steps for side in (guard, NONE)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            verdict = "  ABOVE" if goal is not None and ratio > goal else ""
            print(
                f"{name:14} {guard:10} {ratio:7.3f} {spread:>15} {goal or '':>7}   {seconds[0]:.2f}, {seconds[1]:.2f}{verdict}", flush=True
            )
    return int(dear)


if __name__ == "__main__":
    raise SystemExit(main())
