"""A step with each method, over the same method by PEFT and transformers' Trainer alone: `python -m tests.bench.methods.speed [METHOD …]`.

Both arms train the same rows in the same order with PEFT's same configuration, and take turns in one process, on one thread; a step is what lies
between two updates, in CPU seconds of the process. The model has random weights in SmolLM2's widths. The last columns show that gradients and the
optimizer's state are as large as what is trained, whatever the method. Exit code 1 says that a ratio is above its target.
"""

from __future__ import annotations

import argparse
import copy
import gc
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import transformers
from peft import get_peft_model
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from finetune_api.v1alpha1.method import MethodType
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.data.prepared import PreparedStage
from finetune_trainer.engine.stage import train_stage
from finetune_trainer.methods.base import Setting
from finetune_trainer.methods.peft_models import TRAINED, quiet_peft
from finetune_trainer.methods.registry import method_of
from finetune_trainer.modeling.base import Plain
from finetune_trainer.modeling.start import Head, Start
from finetune_trainer.progress import NullReporter
from tests.bench.arms import CPU, FP32, Case, RandomRows, order_of, padded
from tests.bench.methods.cell import Watch
from tests.bench.throughput import lengths, llama

TARGET: Final = 1.1
build = partial(llama, hidden=576, layers=2, heads=9, kv_heads=3, inner=1536, vocabulary=8192)
CASE: Final = Case("2x576", build, lengths(64, 128, 256), 0.0, 8192, 4, 128, 2, 6)
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "full": {"type": "full"},
    "lora": {"type": "lora"},
    "lora, dora": {"type": "lora", "lora": {"dora": True}},
    **{
        str(method): {"type": str(method)}
        for method in (
            MethodType.ADALORA, MethodType.LOHA, MethodType.LOKR, MethodType.VERA, MethodType.OFT, MethodType.BOFT, MethodType.HRA,
            MethodType.FOURIERFT, MethodType.GRALORA, MethodType.IA3, MethodType.LN_TUNING, MethodType.PROMPT_TUNING,
            MethodType.PREFIX_TUNING, MethodType.P_TUNING, MethodType.C3A, MethodType.QLORA,
        )
    },
    "partial": {"type": "partial", "partial": {"lastLayers": 1}},
}  # fmt: skip
"""Every method that PEFT has too, and one that only freezes. Not: gradual, AFLoRA and bottlenecks, which neither library has; headOnly, which this
model's tied head refuses; trainableTokens, whose rows PEFT takes out of the embeddings in a way of its own."""


class Silent:
    """As much of a tokenizer as training needs."""

    pad_token_id = 0

    def __len__(self) -> int:
        return CASE.vocabulary


@dataclass(frozen=True)
class Measured:
    """One turn of one arm."""

    seconds: float
    """Median CPU seconds of a step."""
    trained: int = 0
    every: int = 0
    """Parameters."""
    state: int = 0
    """Bytes of the trained weights, their gradients, and the optimizer's state."""


def stage_of(method: dict[str, Any]) -> Stage:
    training = {"learningRate": 1e-4, "maxSteps": CASE.warmup + CASE.steps, "perDeviceTrainBatchSize": CASE.batch_size}
    data = {"train": [{"uri": "file://rows.jsonl"}]}
    stage = Stage.model_validate(
        {"name": "bench", "objective": "causalLanguageModeling", "data": data, "method": method, "training": training}
    )
    return stage.model_copy(update={"method": stage.method.resolved()})


def module_of(method: dict[str, Any]) -> nn.Module:
    stage = stage_of(method)
    setting = Setting(Plain(CASE.build(), Head.CAUSAL, frozenset()), stage, "spec.stages[0]", Start.base(Path("bench")))
    return method_of(stage.method.type).apply(setting)


def ours(method: dict[str, Any]) -> Measured:
    """The stage as the product trains it, with everything around its loop but the files of checkpoints."""
    module, rows = module_of(method), RandomRows(CASE)
    parameters = list(module.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    watch = Watch(module, reference=False)
    prepared = PreparedStage(rows, None, None, np.arange(len(rows)), CASE.max_length)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        train_stage(
            model=module, tokenizer=Silent(), stage=stage_of(method), key="0-bench", prepared=prepared, precision=FP32, device=CPU, seed=0,  # type: ignore[arg-type]
            folder=Path(folder), committer=watch, resume=None, reporter=NullReporter(), stop=StopFlag(),
        )  # fmt: skip
    count = sum(parameter.numel() for parameter in trained)
    every = sum(parameter.numel() for parameter in parameters)
    return Measured(median(watch.steps[CASE.warmup :]), count, every, 4 * count + watch.gradients + watch.optimizer)


class InOrder(Trainer):
    """Takes the rows as they come."""

    def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


class Marks(TrainerCallback):
    """Looks at the clock where gradients stand, and keeps what AdaLoRA's documentation asks of whoever trains it."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.marks.append(time.process_time())

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        if hasattr(getattr(model, "base_model", None), "update_and_allocate"):
            model.base_model.update_and_allocate(state.global_step)


def alone(method: dict[str, Any]) -> Measured:
    """PEFT and transformers' Trainer, with nothing of ours but the configuration; of qlora and partial the model too: there the loops alone are compared."""
    made = module_of(method)
    own = getattr(made, "peft_config", None)
    if own is None or stage_of(method).method.row.quantizations:  # what is frozen, and in how few bits, is all that is the method's
        model = made
    else:
        with quiet_peft():
            model = get_peft_model(CASE.build(), copy.deepcopy(own[TRAINED]))  # type: ignore[arg-type]
    rows, steps = RandomRows(CASE), CASE.warmup + CASE.steps
    order = order_of(CASE, rows, packed=False)
    indexes = [row for step in range(steps) for line in order.step(step).batches[0] for row in line]
    marks = Marks()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=CASE.batch_size, learning_rate=1e-4, weight_decay=0.0,
            report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True, logging_steps=10, dataloader_pin_memory=False,
            remove_unused_columns=False,
        )  # fmt: skip
        trainer = InOrder(model, arguments, train_dataset=indexes, data_collator=partial(padded, rows), callbacks=[marks])  # type: ignore[arg-type]
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Measured(
        median(after - before for before, after in zip(marks.marks[CASE.warmup :], marks.marks[CASE.warmup + 1 :], strict=False))
    )


def measure(method: dict[str, Any], repeats: int) -> tuple[list[Measured], list[Measured]]:
    """Both arms by turns; every second round in the opposite order, so that neither always comes first."""
    found: dict[str, list[Measured]] = {"ours": [], "alone": []}
    arms = {"ours": ours, "alone": alone}
    for number in range(repeats):
        for name in arms if number % 2 == 0 else reversed(arms):
            gc.collect()
            found[name].append(arms[name](method))
    return found["ours"], found["alone"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"default: all of {', '.join(OPTIONS)}")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    dear = False
    print(
        f"{'method':14} {'ours / alone':>13} {'range':>15} {'target':>7}   CPU seconds a step: ours, alone   trained   bytes of state a trained parameter",
        flush=True,
    )
    for name in options.methods or OPTIONS:
        mine, other = measure(OPTIONS[name], options.repeats)
        ratios = [a.seconds / b.seconds for a, b in zip(mine, other, strict=True)]
        ratio = median(ratios)
        dear = dear or ratio > TARGET
        seconds = f"{median(one.seconds for one in mine):.3f}, {median(one.seconds for one in other):.3f}"
        share, state = mine[0].trained / mine[0].every, mine[0].state / mine[0].trained
        verdict = "  ABOVE" if ratio > TARGET else ""
        print(
            f"{name:14} {ratio:13.3f} {f'{min(ratios):.2f} to {max(ratios):.2f}':>15} {TARGET:7.2f}   {seconds:>30} {share:9.3%} {state:10.1f}{verdict}",
            flush=True,
        )
    return int(dear)


if __name__ == "__main__":
    raise SystemExit(main())
