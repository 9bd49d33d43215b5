"""Whether dann keeps a real model's features from telling the domain: `python -m tests.bench.dann [--seeds N] [--strength S …] [--tiny]`.

MiniLM learns the 26 noun classes from rows of two domains (a dictionary's gloss, and the same said in a letter), by the stage of
examples/guard-dann.yaml, with and without the guard. Prints, for each seed, the accuracy on rows that were not trained on and what fresh probes
tell of their domain, with 95 % intervals. With --tiny: the same of the tiny models of tests/unit/guards, by case. Probes learn from half of those rows and are asked about the others, of other glosses.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import yaml

from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_trainer.engine.losses import unwrapped
from finetune_trainer.guards.dann import class_heads
from finetune_trainer.modeling.stage_model import StageModel
from scripts.demo_assets import ROOT, demo_folder
from tests.bench.methods.cell import alone_and_quiet, train
from tests.unit.guards.marked import CASES, Case, shown
from tests.unit.guards.probes import interval, told

RUNS: Final = ROOT / "runs/bench-dann"
EXAMPLE: Final = ROOT / "examples/guard-dann.yaml"
DOMAINS: Final = {"dictionary": "{}", "letter": "As for your question, I would say that it is {}, at least where I come from."}
STEPS: Final = 104
BATCH: Final = 16


def rows(name: str) -> list[dict[str, Any]]:
    """Every gloss in both domains, one after the other."""
    glosses = [json.loads(line) for line in (demo_folder() / f"data/{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{**gloss, "text": form.format(gloss["text"]), "desk": domain} for gloss in glosses for domain, form in DOMAINS.items()]


def write(name: str, found: list[dict[str, Any]]) -> None:
    RUNS.mkdir(parents=True, exist_ok=True)
    (RUNS / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


def manifest(seed: int, strength: float) -> dict[str, Any]:
    """The example's stage on these rows, in so many steps."""
    document: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    spec = document["spec"]
    (stage,) = spec["stages"]
    spec |= {"seed": seed, "evaluation": {"baseline": False, "samples": {"count": 0}, "suites": []}}
    spec["references"]["claims"].append({"name": "work", "claimName": "finetune-work"})
    stage["data"] |= {"train": [{"uri": "pvc://work/train.jsonl"}], "validation": {"uri": "pvc://work/validation.jsonl"}}
    del stage["training"]["numTrainEpochs"]
    stage["training"] |= {"maxSteps": STEPS, "perDeviceTrainBatchSize": BATCH}
    if strength:
        stage["regularization"][0]["strength"] = strength
    else:
        del stage["regularization"], stage["data"]["columns"]
    return document


def features(model: StageModel, tokenizer: Any, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the classes are read from, and the classes' numbers."""
    net, kept, said = model.module.eval(), [], []
    seen: list[torch.Tensor] = []
    handles = [head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])) for head in class_heads(unwrapped(net))]
    with torch.no_grad():
        for batch in chunks(texts, 50):
            logits = net(**tokenizer(batch, return_tensors="pt", padding=True, truncation=True, max_length=64)).logits
            kept.append(seen[0])  # an adapter on the head calls layers of its own after it
            said.append(logits.argmax(-1))
            seen.clear()
    for handle in handles:
        handle.remove()
    return torch.cat(kept), torch.cat(said)


def tiny(case: Case, seed: int, strength: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        _, found = shown(Path(folder), case, seed, layered=True, strength=strength or None)
    return f"task {found.task:.3f}   linear probe {found.linear:.3f}   probe of one hidden layer {found.layered:.3f}"


def chunks(texts: list[str], size: int) -> Iterator[list[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def measure(seed: int, strength: float, test: list[dict[str, Any]]) -> str:
    runtime = Runtime(run_folder=str(RUNS / f"run-{strength:g}"), mounts={"demo": str(demo_folder()), "work": str(RUNS)}, threads=1)
    done = train(plan(FineTuneJob.model_validate(manifest(seed, strength)), runtime=runtime).segments[-1])
    found, said = features(done.model, done.tokenizer, [row["text"] for row in test])
    names = done.model.labels or ()
    right = sum(names[int(number)] == row["label"] for number, row in zip(said, test, strict=True))
    domains = torch.tensor([list(DOMAINS).index(row["desk"]) for row in test])
    shares = {
        "task": (right, len(test)),
        "linear probe": (told(found, domains), len(test) // 2),
        "probe of one hidden layer": (told(found, domains, hidden=64), len(test) // 2),
    }
    return "   ".join(
        f"{name} {right / count:.3f} ({{:.3f}} to {{:.3f}})".format(*interval(right, count)) for name, (right, count) in shares.items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 1 (default: 3)")
    parser.add_argument("--strength", type=float, nargs="+", default=[0.0, 1.0], help="0: without the guard (default: 0 and 1)")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    alone_and_quiet()
    if options.tiny:
        for case, seed, strength in product(CASES, range(1, options.seeds + 1), options.strength):
            print(
                f"{case.kind}, {case.objective}, {case.role}, seed {seed}, strength {strength:<4g} {tiny(case, seed, strength)}", flush=True
            )
        return 0
    write("train", rows("noun-classes-train"))
    test = rows("noun-classes-test")
    write("validation", test[:40])
    glosses = [test[start : start + 2] for start in range(0, len(test), 2)]
    random.Random(0).shuffle(glosses)
    test = [row for gloss in glosses for row in gloss]
    for seed in range(1, options.seeds + 1):
        for strength in options.strength:
            print(f"seed {seed}, strength {strength:<4g} {measure(seed, strength, test)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
