"""Does a domain stage help the task? `make bench-learning`: domain → task against task only, three seeds of each, real model and text.

Prints the completion NLL a token on 300 words that neither stage saw, then the difference paired by word: its mean over the seeds, the
95 % bootstrap interval over the words, and each seed's sign. Ends with 1 where the interval contains zero or the seeds disagree.
Runs that are there already are not repeated; a stopped one goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from finetune_trainer.evaluation.records import RowRecords
from finetune_trainer.evaluation.results import rows_path
from scripts.demo_assets import ROOT, demo_folder

SUITE = "in-domain"
FIRST_SEED = 1
DOMAIN_TASK, TASK_ONLY = "bench-learning", "bench-learning-task-only"
RUNS = ROOT / "runs/bench-learning"
DRAWS = 10_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Task only less domain → task, in nats a token: positive where the domain stage helped."""

    mean: float
    low: float
    high: float
    seeds: list[float]

    @property
    def convincing(self) -> bool:
        return (self.low > 0 or self.high < 0) and len({seed > 0 for seed in self.seeds}) == 1 and self.mean > 0


def compare(without: Floats, with_domain: Floats) -> Comparison:
    """Compare NLLs a token, both (seeds, words) in the same order of words; the bootstrap draws words, since seeds are few."""
    difference = without - with_domain
    by_word = difference.mean(axis=0)
    generator = np.random.default_rng(0)
    drawn = by_word[generator.integers(0, len(by_word), (DRAWS, len(by_word)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Comparison(float(by_word.mean()), float(low), float(high), [float(value) for value in difference.mean(axis=1)])


def manifest(arm: str, seed: int, *, baseline: bool) -> dict[str, Any]:
    """The example's manifest with another seed; the base is the same for all, so one run measures it."""
    document: dict[str, Any] = yaml.safe_load((ROOT / f"examples/{arm}.yaml").read_text())
    document["metadata"]["name"] = f"{arm}-seed-{seed}"
    document["spec"]["seed"] = seed
    document["spec"]["evaluation"]["baseline"] = baseline
    return document


def run(arm: str, seed: int, demo: Path) -> Path:
    """Run (or go on with, or find finished) one arm with one seed; return its run folder."""
    document = manifest(arm, seed, baseline=(arm, seed) == (DOMAIN_TASK, FIRST_SEED))
    RUNS.mkdir(parents=True, exist_ok=True)
    path = RUNS / f"{document['metadata']['name']}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    folder = path.with_suffix("")
    finetune = Path(sys.executable).parent / "finetune"
    code = subprocess.run([finetune, "run", path, "--mount", f"demo={demo}", "--run-folder", folder], check=False).returncode
    if code:
        raise SystemExit(code)
    return folder


def records(folder: Path, point: str) -> RowRecords:
    return RowRecords.load(rows_path(folder / "evaluation", point, SUITE))


def per_word(found: list[RowRecords]) -> Floats:
    """(seeds, words) NLL a token; refuses rows in another order, which could not be paired."""
    if any((one.ids != found[0].ids).any() for one in found):
        raise SystemExit("the runs did not measure the same words: delete runs/bench-learning and start again")
    return np.stack([one.nll / one.tokens for one in found])


def overall(one: RowRecords) -> float:
    """NLL a token over all words together, as the suite's loss is."""
    return float(one.nll.sum() / one.tokens.sum())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 1 (default: 3)")
    seeds = range(FIRST_SEED, FIRST_SEED + parser.parse_args().seeds)
    print(
        f"Domain → task against task only: 2,000 glosses, 200 pairs, {len(seeds)} seeds of each; a quarter of an hour a seed.", flush=True
    )
    demo = demo_folder()
    folders = {(arm, seed): run(arm, seed, demo) for seed in seeds for arm in (DOMAIN_TASK, TASK_ONLY)}
    base = records(folders[DOMAIN_TASK, FIRST_SEED], "base")
    domain = [records(folders[DOMAIN_TASK, seed], "0-domain") for seed in seeds]
    both = [records(folders[DOMAIN_TASK, seed], "1-task") for seed in seeds]
    task = [records(folders[TASK_ONLY, seed], "0-task") for seed in seeds]
    words = per_word([*task, *both])
    result = compare(words[: len(seeds)], words[len(seeds) :])
    print(f"\nCompletion NLL a token on {len(base)} unseen words (base {overall(base):.3f}):\n")
    print(f"{'seed':>4} {'domain only':>12} {'task only':>12} {'domain → task':>14} {'paired by word':>15}")
    for seed, first, second, third, difference in zip(seeds, domain, task, both, result.seeds, strict=True):
        print(f"{seed:>4} {overall(first):>12.3f} {overall(second):>12.3f} {overall(third):>14.3f} {difference:>+15.3f}")
    signs = "the same sign for every seed" if len({seed > 0 for seed in result.seeds}) == 1 else "NOT the same sign for every seed"
    print(
        f"\nDomain → task is {result.mean:.3f} better, mean over seeds; 95 % bootstrap over words {result.low:.3f} to {result.high:.3f}; {signs}."
    )
    return 0 if result.convincing else 1


if __name__ == "__main__":
    raise SystemExit(main())
