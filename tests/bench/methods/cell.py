"""One cell: a setting on a task with a seed, trained by the product's own code and measured by its own suites.

Each runs in a process that is forked with everything imported, so that its peak of memory is its own and nothing of one cell is left in the next.
"""

from __future__ import annotations

import gc
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.validation import load_problems
from finetune_api.wire import TrainerConfig
from finetune_trainer.checkpoint.manifest import Evaluation
from finetune_trainer.checkpoint.nowhere import Nowhere
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.snapshot import Snapshot
from finetune_trainer.data.draws import stage_seed
from finetune_trainer.data.examples import StageExamples
from finetune_trainer.data.prepare import prepare
from finetune_trainer.data.prepared import Prepared, load_prepared
from finetune_trainer.engine.precision import Precision, resolve_precision
from finetune_trainer.engine.stage import train_stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.suites import evaluate
from finetune_trainer.export.adapter import BaseReference, write_adapter
from finetune_trainer.guards.registry import guards_of
from finetune_trainer.modeling.plain import plain_weights
from finetune_trainer.modeling.stage_model import StageModel, build_stage_model
from finetune_trainer.modeling.start import Start
from finetune_trainer.progress import NullReporter
from finetune_trainer.tokenizer import load_tokenizer
from scripts.demo_assets import demo_folder
from tests.bench.methods.settings import Setting
from tests.bench.methods.tasks import RUNS, manifest
from tests.procfs import memory

CPU: Final = torch.device("cpu")
FP32: Final = Precision(torch.float32, torch.float32, None)
MIB: Final = 2**20
MATRIX: Final = torch.ones(512, 512)


class Refused(Exception):
    """The product refuses the combination, with its words."""


def alone_and_quiet() -> None:
    """One thread, and nothing said but what a bench prints."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)


@dataclass
class Watch(Nowhere):
    """Saves nothing, and sees each step's end, when gradients stand and nothing is updated yet."""

    module: torch.nn.Module
    reference: bool = True
    """Whether a fixed piece of work is timed at each step, to compare steps of different moments."""
    steps: list[float] = field(default_factory=list)
    """CPU seconds of each step but the first."""
    references: list[float] = field(default_factory=list)
    since: float | None = None
    gradients: int = 0
    optimizer: int = 0

    def settle(self) -> None:
        if self.since is not None:
            self.steps.append(time.process_time() - self.since)
        if self.reference:
            self.references.append(_reference())
        self.gradients = max(self.gradients, sum(_size(one.grad) for one in self.module.parameters() if one.grad is not None))
        self.since = time.process_time()

    def commit(self, stage: str, step: int, snapshot: Snapshot, *, evaluation: Evaluation = Evaluation.NONE) -> None:
        self.optimizer = sum(_size(one) for name, tensors in snapshot.tensors.items() if "optim" in name for one in tensors.values())


@dataclass(frozen=True)
class Trained:
    """A trained model and what it took."""

    config: TrainerConfig
    prepared: Prepared
    tokenizer: Any
    model: StageModel
    validation_loss: float
    figures: Mapping[str, Any]


def configured(setting: Setting, task: str, *, seed: int, factor: float) -> TrainerConfig:
    """What the trainer is told. Raises Refused."""
    document = manifest(setting, task, seed=seed, factor=factor)
    errors = [problem for problem in load_problems(document) if problem.severity == "error"]
    if errors:
        raise Refused("; ".join(problem.message for problem in errors))
    runtime = Runtime(run_folder=str(RUNS / task), mounts={"demo": str(demo_folder()), "work": str(RUNS)}, threads=1)
    return plan(FineTuneJob.model_validate(document), runtime=runtime).segments[-1]


def train(config: TrainerConfig) -> Trained:
    """Prepare and train. Raises Refused."""
    try:
        return _train(config)
    except TrainerError as error:
        raise Refused(str(error)) from error


def _train(config: TrainerConfig) -> Trained:
    reporter, stage = NullReporter(), config.spec.stages[0]
    Path(config.run_folder).mkdir(parents=True, exist_ok=True)
    prepare(config, reporter)
    prepared = load_prepared(config)
    tokenizer = load_tokenizer(prepared.tokenizer_folder, config.spec)
    precision = resolve_precision(stage.training.mixed_precision, device=CPU, checkpoint=torch.float32, bf16_capable=False)
    seed = stage_seed(config.spec.data_seed, 0)
    before = memory("VmRSS") * 1024
    model = build_stage_model(
        start=Start.base(prepared.model_folder), stage=stage, spec=config.spec, labels=prepared.stages[stage.name].labels, tokenizer=tokenizer,
        precision=precision, seed=seed, examples=StageExamples(prepared.stages[stage.name].train, stage.data.train, seed, CPU),
    )  # fmt: skip
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # what loading took shall not hide what training takes
    watch = Watch(model.module)
    trained = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
    counts = sum(parameter.numel() for parameter in trained), sum(_size(parameter) for parameter in trained)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        outcome = train_stage(
            model=model.module, tokenizer=tokenizer, stage=stage, key="0-task", prepared=prepared.stages[stage.name], precision=precision,
            device=CPU, seed=seed, folder=Path(folder), committer=watch, resume=None, reporter=reporter, stop=StopFlag(),
            guards=guards_of(model, tokenizer=tokenizer, seed=seed),
        )  # fmt: skip
        took = time.process_time() - began
    every = sum(parameter.numel() for parameter in model.module.parameters())
    figures = {
        "steps": outcome.steps,
        "trained": counts[0],
        "parameters": every,
        "bytes": {"trained": counts[1], "gradients": watch.gradients, "optimizer": watch.optimizer},
        "peakMiB": round((memory("VmHWM") * 1024 - before) / MIB),
        "stepSeconds": round(statistics.median(watch.steps), 4),
        "referenceSeconds": round(statistics.median(watch.references), 5),
        "trainSeconds": round(took, 1),
    }
    return Trained(config, prepared, tokenizer, model, float(outcome.metrics["eval_loss"]), figures)


def untrained(config: TrainerConfig) -> Trained:
    """What the task starts from, under an adapter that does nothing yet."""
    stage = config.spec.stages[0]
    Path(config.run_folder).mkdir(parents=True, exist_ok=True)
    prepare(config, NullReporter())
    prepared = load_prepared(config)
    tokenizer = load_tokenizer(prepared.tokenizer_folder, config.spec)
    model = build_stage_model(
        start=Start.base(prepared.model_folder), stage=stage, spec=config.spec, labels=None, tokenizer=tokenizer, precision=FP32, seed=0
    )
    return Trained(config, prepared, tokenizer, model, 0.0, {})


def measured(done: Trained) -> dict[str, Any]:
    """Every suite: each figure with its interval, and what pairs it with another cell: a number a row."""
    suites: dict[str, Any] = {}
    for suite in done.config.spec.evaluation.suites:
        prepared = done.prepared.suites[suite.name]
        found = evaluate(
            done.model.module, done.tokenizer, suite, prepared, batch_size=16, device=CPU, seed=1, reporter=NullReporter(),
            should_stop=lambda: False, head_labels=done.model.labels,
        )  # fmt: skip
        records = found.records
        rows = (
            {"correct": records.correct} if suite.name == "task" and done.model.labels else {"nll": records.nll, "tokens": records.tokens}
        )
        suites[suite.name] = {
            "estimates": {
                str(metric): [round(value, 5) for value in (estimate.value, estimate.low, estimate.high)]
                for metric, estimate in found.result.estimates.items()
            },
            "rows": {name: [round(float(value), 3) for value in values] for name, values in rows.items()},
        }
    return suites


def artifact_bytes(done: Trained) -> int:
    """Of the weights that are published: an adapter's file, or the whole model in fp32."""
    if not done.model.stage.method.row.adapter:
        return sum(_size(tensor) for tensor in plain_weights(done.model.module).values())
    with tempfile.TemporaryDirectory() as name:
        write_adapter(Path(name), done.model, BaseReference("base"), None)
        return sum(file.stat().st_size for file in Path(name).glob("*.safetensors"))


def _reference() -> float:
    """CPU seconds of a fixed piece of work: how fast the core is at this moment, with whatever runs beside it."""
    began = time.process_time()
    for _ in range(4):
        MATRIX @ MATRIX
    return time.process_time() - began


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
