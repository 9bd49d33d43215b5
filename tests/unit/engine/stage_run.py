"""A stage trained on a tiny model with the real checkpoint store: what the tests of training share."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.training import MixedPrecision
from finetune_api.wire import Activity
from finetune_trainer.checkpoint.epochs import SAMPLES, open_epoch
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.state import digest
from finetune_trainer.checkpoint.store import CheckpointStore
from finetune_trainer.data.prepared import PreparedStage
from finetune_trainer.engine.precision import apply_precision, resolve_precision
from finetune_trainer.engine.stage import StageOutcome, train_stage
from finetune_trainer.guards.registry import guards_of
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import HEADS, Start
from finetune_trainer.run_folder import RunFolder
from tests.unit.engine.tiny_models import VOCABULARY, FakeRows, model

KEY = "0-task"
CPU = torch.device("cpu")
LENGTHS = np.random.default_rng(3).integers(5, 30, 40).tolist()
Reported = Callable[[Activity, dict[str, Any]], None]


class Reporter:
    """Tells the test's function of every report."""

    def __init__(self, seen: Reported) -> None:
        self._seen = seen

    def report(self, activity: Activity, **fields: Any) -> None:
        self._seen(activity, fields)


class Clock:
    """A second (or what is given) passes whenever it is read, so that every step is reported."""

    def __init__(self, tick: float = 1.0) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


@dataclass(frozen=True)
class Trained:
    """What a run of the stage ended in."""

    outcome: StageOutcome
    weights: str
    """Their digest."""
    samples: bytes
    folder: Path
    model: nn.Module

    @property
    def curve(self) -> list[dict[str, Any]]:
        import json

        return [json.loads(line) for line in (self.folder / "curve.jsonl").read_text().splitlines()]


def stage(training: dict[str, Any], **fields: Any) -> Stage:
    defaults = {"learningRate": 1e-3, "maxSteps": 6, "perDeviceTrainBatchSize": 4, "warmupSteps": 2, "loggingSteps": 1}
    document = {
        "name": "task",
        "objective": "supervised",
        "data": {"train": [{"uri": "file://rows.jsonl"}], "validation": {"fraction": 0.1}},
        "method": {"type": "full"},
        "training": {key: value for key, value in (defaults | training).items() if value is not None},
        **fields,
    }
    return Stage.model_validate(document)


def train(
    folder: Path, planned: Stage, *, kind: str = "llama", validated: bool = False, seed: int = 3, on_report: Reported | None = None,
    stop: StopFlag | None = None, dropout: float | None = 0.0, prepare: Callable[[nn.Module], None] = lambda net: None, store: type[CheckpointStore] = CheckpointStore,
    clock: Clock | None = None, net: nn.Module | None = None, rows: FakeRows | None = None, chosen: range | None = None,
) -> Trained:  # fmt: skip
    """Train the stage in this run folder, from its newest checkpoint where it has one. dropout: everywhere; None leaves each layer its own."""
    without_libraries()
    epoch = open_epoch(RunFolder(folder), segment=1)
    net = model(kind) if net is None else net
    for module in net.modules() if dropout is not None else ():
        if isinstance(module, nn.Dropout):
            module.p = dropout
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = dropout
    prepare(net)
    rows, validation = rows or FakeRows(LENGTHS), FakeRows(LENGTHS[:9], seed=1)
    prepared = PreparedStage(rows, validation if validated else None, None, np.asarray(chosen or range(len(rows))), 64)  # type: ignore[arg-type]
    precision = resolve_precision(
        planned.training.mixed_precision or MixedPrecision.AUTO,
        device=CPU,
        checkpoint=torch.float32,
        bf16_capable=False,
        weights=planned.method.weights,
    )
    apply_precision(net, precision)
    built = StageModel(net, planned, HEADS[planned.objective], Start.base(folder / "no model"), None, precision)
    outcome = train_stage(
        model=net, tokenizer=tokenizer(), stage=planned, key=KEY, prepared=prepared, device=CPU, seed=seed, folder=epoch.stage_folder(KEY),
        precision=precision, guards=guards_of(built, tokenizer=tokenizer(), seed=seed),
        committer=store(epoch, keep=planned.checkpoint.keep), resume=epoch.start,
        reporter=Reporter(on_report or (lambda activity, fields: None)), stop=stop or StopFlag(), clock=clock or Clock(),
    )  # fmt: skip
    log = epoch.stage_folder(KEY) / SAMPLES
    return Trained(outcome, digest(dict(net.named_parameters())), log.read_bytes(), log.parent, net)


@functools.cache
def without_libraries() -> None:
    """Keep what the libraries have loaded out of the collection at each stage's end, which would take longer than a tiny stage itself."""
    gc.collect()
    gc.freeze()


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows only its special tokens and its size."""
    from tokenizers import Tokenizer, models

    words = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", *(f"w{index}" for index in range(5, VOCABULARY))]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", mask_token="<mask>"
    )
