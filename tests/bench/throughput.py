"""Throughput against a bare torch loop and TRL: `python -m tests.bench.throughput [CASE …] [--repeats N]`.

Prints non-pad tokens a CPU second of each arm, and the median of the ratios of neighbours in time: the arms take turns in one process, on
one thread, so that whatever else the machine does meets all of them alike. Models have random weights in the real shapes. Exit code 1 says
that a ratio fell short of its target.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

from tests.bench.arms import Case, Measured, bare, ours, trl

TARGETS = {"bare": 0.97, "TRL": 1.0, "TRL packed": 1.2}
SMALL_BARE = 0.9


def llama(*, hidden: int, layers: int, heads: int, kv_heads: int, inner: int, vocabulary: int, tied: bool = True) -> nn.Module:
    """A Llama with random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        intermediate_size=inner, tie_word_embeddings=tied, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        use_cache=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def smollm2() -> nn.Module:
    """SmolLM2-135M's shape."""
    return llama(hidden=576, layers=30, heads=9, kv_heads=3, inner=1536, vocabulary=49152)


def with_lora(build: Callable[[], nn.Module]) -> nn.Module:
    """r 16 on all linear modules."""
    torch.manual_seed(0)
    return get_peft_model(build(), LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))


def lengths(mean: int, longest: int, count: int) -> np.ndarray:
    """Lengths like those of real short texts: log-normal, cut."""
    drawn = np.random.default_rng(1).lognormal(np.log(mean), 0.5, count)
    return np.clip(drawn, 4, longest).astype(np.int32)


small = partial(llama, hidden=64, layers=2, heads=4, kv_heads=4, inner=256, vocabulary=8192)
middle = partial(llama, hidden=512, layers=8, heads=8, kv_heads=8, inner=1408, vocabulary=8192)
CASES = {
    case.name: case
    for case in (
        Case("2x64", small, np.full(512, 128, np.int32), 0.0, 8192, 8, 128, 5, 30),
        Case("2x64-short", small, lengths(48, 128, 2048), 0.0, 8192, 8, 128, 5, 30),
        Case("8x512", middle, lengths(256, 512, 512), 0.0, 8192, 4, 512, 1, 4),
        Case("smollm2-full", smollm2, lengths(40, 128, 512), 0.0, 49152, 8, 128, 1, 3),
        Case("smollm2-lora", partial(with_lora, smollm2), lengths(40, 128, 512), 0.0, 49152, 8, 128, 1, 3),
        Case("smollm2-lora-completion", partial(with_lora, smollm2), lengths(40, 128, 512), 0.6, 49152, 8, 128, 1, 3),
    )
}
ARMS: dict[str, Callable[[Case], Measured]] = {
    "ours": ours,
    "bare": bare,
    "TRL": trl,
    "ours packed": partial(ours, packed=True),
    "TRL packed": partial(trl, packed=True),
}
PAIRS = {"bare": "ours", "TRL": "ours", "TRL packed": "ours packed"}


def measure(case: Case, arms: list[str], repeats: int) -> dict[str, list[Measured]]:
    """Run the arms by turns; every second round in the opposite order, so that none always comes first."""
    results: dict[str, list[Measured]] = {arm: [] for arm in arms}
    for round_number in range(repeats):
        for arm in arms if round_number % 2 == 0 else reversed(arms):
            results[arm].append(ARMS[arm](case))
    return results


def target(case: Case, arm: str) -> float:
    """What the ratio ours / arm has to reach."""
    return SMALL_BARE if arm == "bare" and case.name.startswith("2x64") else TARGETS[arm]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="default: all")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--json", action="store_true", help="one JSON line a ratio")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    short = False
    print(f"{'case':24} {'ours / arm':14} {'ratio':>7} {'range':>15} {'target':>7}   non-pad tokens a CPU second: ours, arm", flush=True)
    for name in options.cases or CASES:
        case = CASES[name]
        results = measure(case, options.arms, options.repeats)
        for arm, mine in PAIRS.items():
            if arm not in results or mine not in results:
                continue
            ratios = [a.rate / b.rate for a, b in zip(results[mine], results[arm], strict=True)]
            ratio, goal = median(ratios), target(case, arm)
            short = short or ratio < goal
            rates = [median(measured.rate for measured in results[side]) for side in (mine, arm)]
            if options.json:
                print(
                    json.dumps({"case": name, "arm": arm, "ratio": ratio, "target": goal, "ours": rates[0], "other": rates[1]}), flush=True
                )
                continue
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            verdict = "" if ratio >= goal else "  SHORT"
            print(f"{name:24} {arm:14} {ratio:7.3f} {spread:>15} {goal:7.2f}   {rates[0]:.0f}, {rates[1]:.0f}{verdict}", flush=True)
    return int(short)


if __name__ == "__main__":
    raise SystemExit(main())
