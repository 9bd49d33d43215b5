"""The arms of the throughput bench: the same model, rows and options, trained by us, by a bare torch loop, and by TRL's SFTTrainer.

Each arm trains `warmup + steps` optimizer steps on a fresh copy of the model and returns what the last `steps` of them took. Times are CPU
seconds of the whole process: other programs on the machine then change them little. Tokens are counted without padding.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PrinterCallback, TrainerCallback

from finetune_api.v1alpha1.stage import Objective, Stage
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.steplog import StepLog
from finetune_trainer.engine.arguments import training_arguments
from finetune_trainer.engine.collate import Collator, Packing
from finetune_trainer.engine.guards import Guards
from finetune_trainer.engine.hooks import Ended, StepFacts
from finetune_trainer.engine.keeper import StageKeeper
from finetune_trainer.engine.order import DataOrder
from finetune_trainer.engine.precision import Precision
from finetune_trainer.engine.trainer import StageTrainer
from finetune_trainer.guards.registry import guards_of
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Head, Start
from finetune_trainer.progress import NullReporter

PAD = 0
CPU = torch.device("cpu")
FP32 = Precision(torch.float32, torch.float32, None)


@dataclass(frozen=True)
class Measured:
    """What the timed steps of one arm took."""

    tokens: int
    cpu: float
    wall: float

    @property
    def rate(self) -> float:
        """Non-pad tokens a CPU second."""
        return self.tokens / self.cpu


@dataclass(frozen=True)
class Case:
    """A model and its data."""

    name: str
    build: Callable[[], nn.Module]
    lengths: npt.NDArray[np.int32]
    prompt_share: float
    """Share of each row that is not predicted."""
    vocabulary: int
    batch_size: int
    max_length: int
    warmup: int
    steps: int


class RandomRows:
    """Rows of random tokens: throughput does not depend on which."""

    def __init__(self, case: Case) -> None:
        generator = np.random.default_rng(0)
        self.lengths = case.lengths
        self.sources = np.arange(len(case.lengths)) % 2
        self._prompt = case.prompt_share
        self._tokens = [generator.integers(1, case.vocabulary, int(length)).astype(np.int32) for length in case.lengths]

    def __len__(self) -> int:
        return len(self._tokens)

    def tokens(self, index: int) -> npt.NDArray[np.int32]:
        return self._tokens[index]

    def supervised(self, index: int) -> npt.NDArray[np.bool_]:
        return np.arange(len(self._tokens[index])) >= self._prompt * len(self._tokens[index])

    def label(self, index: int) -> int:
        return -1

    def id(self, index: int) -> str:
        return f"{index:016x}"


class Stopwatch:
    """Starts after the warm-up steps, stops with the last."""

    def __init__(self, case: Case) -> None:
        self._first, self._last = case.warmup, case.warmup + case.steps
        self._tokens = 0
        self.measured: Measured | None = None

    def step(self, number: int, tokens: int) -> None:
        """Step `number` (from 1) ended; `tokens` were in it."""
        if number == self._first:
            self._tokens, self._cpu, self._wall = 0, time.process_time(), time.perf_counter()
            return
        self._tokens += tokens
        if number == self._last:
            self.measured = Measured(self._tokens, time.process_time() - self._cpu, time.perf_counter() - self._wall)

    def result(self) -> Measured:
        assert self.measured is not None, "the arm ended before its last step"
        return self.measured


def stage_of(case: Case, *, packed: bool, guards: Sequence[dict[str, Any]] = ()) -> Stage:
    """The stage that all arms train. Every second row is replayed, for a guard that learns from it."""
    training = {"learningRate": 1e-4, "maxSteps": case.warmup + case.steps, "perDeviceTrainBatchSize": case.batch_size, "packing": packed}
    objective = "supervised" if case.prompt_share else "causalLanguageModeling"
    data = {"train": [{"uri": "file://rows.jsonl", "weight": 0.5}, {"uri": "file://old.jsonl", "weight": 0.5, "replay": True}]}
    kept = {"regularization": list(guards)} if guards else {}
    return Stage.model_validate(
        {"name": "bench", "objective": objective, "data": data, "method": {"type": "full"}, "training": training, **kept}
    )


def order_of(case: Case, rows: RandomRows, *, packed: bool) -> DataOrder:
    return DataOrder(
        lengths=rows.lengths,
        selection=np.arange(len(rows)),
        batch_size=case.batch_size,
        accumulation=1,
        seed=0,
        packed_length=case.max_length if packed else None,
    )


class _SavesNothing:
    def settle(self) -> None:
        """Nothing was read, so nothing is waited for."""


class _Timed(StageKeeper):
    """The keeper of a real run (sample log, curve, progress), and a stopwatch; nothing is committed inside the timed steps."""

    stopwatch: Stopwatch

    def step_ended(self, trainer: StageTrainer, facts: StepFacts) -> Ended:
        if facts.step == trainer.total_steps:
            self.stopwatch.step(facts.step, facts.tokens)
            return Ended.STEPPED
        ended = super().step_ended(trainer, facts)
        self.stopwatch.step(facts.step, facts.tokens)
        return ended


def ours(case: Case, *, packed: bool = False, guards: Sequence[dict[str, Any]] = ()) -> Measured:
    """StageTrainer, with the keeper of a real run, under these guards."""
    rows = RandomRows(case)
    stage = stage_of(case, packed=packed, guards=guards)
    model = case.build()
    guarded = Guards(guards_of(StageModel(model, stage, Head.CAUSAL, Start.base(Path("bench")), None, FP32), tokenizer=None, seed=0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples, curve = StepLog(folder / "samples.jsonl"), StepLog(folder / "curve.jsonl")
        keeper = _Timed(
            stage=stage, key="0-bench", committer=_SavesNothing(), samples=samples, curve=curve, validate=None, resume=None,  # type: ignore[arg-type]
            reporter=NullReporter(), stop=StopFlag(),
        )  # fmt: skip
        keeper.stopwatch = Stopwatch(case)
        total = case.warmup + case.steps
        arguments = training_arguments(stage, seed=0, total_steps=total, precision=FP32, device=CPU, folder=folder)
        collator = Collator(Objective.SUPERVISED, PAD, packing=Packing.POSITIONS if packed else None, needs_mask=False)
        order = order_of(case, rows, packed=packed)
        trainer = StageTrainer(model, arguments, rows=rows, order=order, collator=collator, total_steps=total, hooks=keeper, guards=guarded)
        trainer.train()
    return keeper.stopwatch.result()


def bare(case: Case) -> Measured:
    """The loop that anyone would write: the same batches, the model's own loss, fused AdamW, clipping, a linear schedule."""
    rows = RandomRows(case)
    order = order_of(case, rows, packed=False)
    stopwatch = Stopwatch(case)
    model = case.build().train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0, fused=True)
    total = case.warmup + case.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, (total - step) / total))
    for step in range(total):
        indexes = [row for line in order.step(step).batches[0] for row in line]
        batch = padded(rows, indexes)
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        stopwatch.step(step + 1, int(batch["attention_mask"].sum()))
    return stopwatch.result()


def padded(rows: RandomRows, indexes: list[int]) -> dict[str, torch.Tensor]:
    """Padding to the longest, with the labels that transformers' models shift themselves."""
    width = max(int(rows.lengths[index]) for index in indexes)
    input_ids = torch.full((len(indexes), width), PAD)
    mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, -100)
    for line, index in enumerate(indexes):
        tokens = torch.from_numpy(rows.tokens(index)).long()
        input_ids[line, : len(tokens)] = tokens
        mask[line, : len(tokens)] = 1
        labels[line, : len(tokens)] = torch.where(torch.from_numpy(rows.supervised(index)), tokens, -100)
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


def trl(case: Case, *, packed: bool = False) -> Measured:
    """TRL's SFTTrainer on the same tokenised rows, its integrations and saving off."""
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()  # they would stand in the table
    rows = RandomRows(case)
    stopwatch = Stopwatch(case)
    consumed: list[int] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            stopwatch.step(state.global_step, consumed[state.global_step - 1])

    dataset = Dataset.from_dict(
        {
            "input_ids": [rows.tokens(index).tolist() for index in range(len(rows))],
            "completion_mask": [rows.supervised(index).astype(int).tolist() for index in range(len(rows))],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, max_steps=case.warmup + case.steps, per_device_train_batch_size=case.batch_size, learning_rate=1e-4,
            max_length=case.max_length, packing=packed, packing_strategy="bfd", use_cpu=True, bf16=False, gradient_checkpointing=False,
            activation_checkpointing=False, report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=10, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = SFTTrainer(case.build(), args=config, train_dataset=dataset, processing_class=_tokenizer(case), callbacks=[Watch()])
        trainer.remove_callback(PrinterCallback)
        collate = trainer.data_collator

        def counted(examples: Any) -> Any:
            batch = collate(examples)
            consumed.append(int((batch["input_ids"] != trainer.processing_class.pad_token_id).sum()))
            return batch

        trainer.data_collator = counted
        trainer.train()
    return stopwatch.result()


def _tokenizer(case: Case) -> Any:
    """A tokenizer with the case's vocabulary; nothing is tokenised with it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"t{index}": index for index in range(case.vocabulary)}
    fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t1")))
    fast.pad_token, fast.eos_token = "t0", "t2"
    return fast
