"""`python -m tests.bench.methods [--seeds N] [--settings NAME …] [--tasks NAME …]`: measure the cells of the methods table that are missing.

The first seed of every row comes first, then the second, so that a run that is stopped leaves a table. Each cell is a line of results.jsonl
as soon as it is measured; `python -m tests.bench.methods.page` makes the table of docs/methods.md from them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import peft  # noqa: F401 - in the process that cells are forked from
from transformers.models.bert import modeling_bert  # noqa: F401
from transformers.models.llama import modeling_llama  # noqa: F401

from scripts.demo_assets import demo_folder
from tests.bench.methods.cell import Refused, Trained, alone_and_quiet, artifact_bytes, configured, measured, train, untrained
from tests.bench.methods.results import Results
from tests.bench.methods.settings import BOTH, BY_NAME, FACTORS, SETTINGS, START, Setting
from tests.bench.methods.tasks import DOMAIN_MANIFEST, DOMAIN_RUN, RUNS, write_data

Cell = tuple[Setting, str, int]


def domain_model() -> None:
    """Train the shared domain stage, once; its published model is what the cells begin with."""
    model = RUNS / "domain/artifacts/merged"
    if model.exists():
        return
    finetune = Path(sys.executable).parent / "finetune"
    command = [finetune, "run", DOMAIN_MANIFEST, "--mount", f"demo={demo_folder()}", "--run-folder", DOMAIN_RUN, "--threads", "1"]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("the domain stage failed")


def order(settings: list[Setting], tasks: list[str], seeds: int) -> Iterator[Cell]:
    for seed in range(1, seeds + 1):
        for task in tasks:
            yield from ((setting, task, seed) for setting in settings if task in setting.tasks and (setting is not START or seed == 1))


def measure(setting: Setting, task: str, seed: int, factors: list[float]) -> dict[str, Any]:
    """Train with each factor, measure the one with the least loss on validation. Raises Refused where every factor is refused."""
    candidates: dict[str, dict[str, Any]] = {}
    best: Trained | None = None
    figures: dict[str, Any] = {}
    for factor in factors:
        config = configured(setting, task, seed=seed, factor=factor)
        try:
            done = untrained(config) if setting is START else train(config)
        except Refused as refused:
            candidates[config.config_hash] = {"factor": factor, "refused": str(refused)}
            continue
        candidates[config.config_hash] = {"factor": factor, "validationLoss": round(done.validation_loss, 5)}
        figures = figures or dict(done.figures)  # of the first: a second stands in memory beside the best so far
        if best is None or done.validation_loss < best.validation_loss:
            best = done
    if best is None:
        raise Refused(next(iter(candidates.values()))["refused"])
    return {
        "configHash": best.config.config_hash,
        "factor": candidates[best.config.config_hash]["factor"],
        "rate": best.config.spec.stages[0].training.learning_rate,
        "validationLoss": round(best.validation_loss, 5),
        **({"candidates": candidates} if len(factors) > 1 else {}),
        **figures,
        "artifactBytes": artifact_bytes(best),
        "suites": measured(best),
    }


def factors_of(setting: Setting, task: str, seed: int, results: Results) -> list[float]:
    """Which rates to try: the fixed one, the one that was chosen, or all."""
    if setting.factor is not None:
        return [setting.factor]
    chosen = results.factor(setting.rate_of or setting.name, task)
    if chosen is not None and (seed > 1 or setting.rate_of):
        return [chosen]
    return list(FACTORS[task])


def in_child(setting: Setting, task: str, seed: int, factors: list[float]) -> dict[str, Any]:
    """Measure in a forked process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def work() -> None:
        try:
            theirs.send(measure(setting, task, seed, factors))
        except Refused as refused:
            theirs.send({"refused": str(refused)})
        except Exception:  # noqa: BLE001 - one cell that fails shall not end the others
            theirs.send({"failed": traceback.format_exc()})

    process = context.Process(target=work)
    process.start()
    theirs.close()
    try:
        found: dict[str, Any] = ours.recv()
    except EOFError:
        found = {"failed": "the process died"}
    process.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 1 (default: 3)")
    parser.add_argument("--settings", nargs="+", choices=list(BY_NAME), default=list(BY_NAME), metavar="NAME")
    parser.add_argument("--tasks", nargs="+", choices=BOTH, default=list(BOTH))
    options = parser.parse_args()
    alone_and_quiet()
    domain_model()
    write_data()
    results, failed = Results.read(), 0
    settings = [setting for setting in SETTINGS if setting.name in options.settings]
    for setting, task, seed in order(settings, options.tasks, options.seeds):
        factors = factors_of(setting, task, seed, results)
        hashes = [configured(setting, task, seed=seed, factor=factor).config_hash for factor in factors]
        if any(results.find(digest) for digest in hashes):
            continue
        began = time.monotonic()
        found = in_child(setting, task, seed, factors)
        took = time.monotonic() - began
        if "failed" in found or "refused" in found:
            failed += 1
            print(f"{setting.name}, {task}, seed {seed}: {found.get('refused') or found['failed']}", file=sys.stderr, flush=True)
            continue
        results.add({"setting": setting.name, "task": task, "seed": seed, **found})
        score = next(iter(found["suites"]["task"]["estimates"].items()))
        print(
            f"{setting.name:28} {task:12} seed {seed}  rate {found['rate']:<8g} {score[0]} {score[1][0]:.4f}  {found.get('peakMiB', 0)} MiB  "
            f"{found.get('stepSeconds', 0):.2f} s a step  {took:.0f} s in all",
            flush=True,
        )
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
