"""The same training by us and by a plain script on transformers' Trainer: `python -m tests.bench.agreement`.

Same tokenised rows in the same order, same hyper-parameters and seed, the same first weights; text is the Python reference that the standard
library carries. Prints both evaluation losses side by side and fails where they differ by more than 1 %.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.training import MixedPrecision
from finetune_trainer.checkpoint.epochs import SAMPLES, open_epoch
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.store import CheckpointStore
from finetune_trainer.data.prepared import PreparedStage
from finetune_trainer.data.rows import Encoded, RowSet, RowSetWriter
from finetune_trainer.engine.precision import resolve_precision
from finetune_trainer.engine.stage import make_collator, train_stage
from finetune_trainer.engine.validation import validate
from finetune_trainer.progress import NullReporter
from finetune_trainer.run_folder import RunFolder
from tests.tiny import make_tiny_bert, make_tiny_llama

TOLERANCE = 0.01
KEY = "0-plain"
CPU = torch.device("cpu")
TRAINING: dict[str, dict[str, Any]] = {
    "causal": {"learningRate": 2e-3, "warmupSteps": 5, "weightDecay": 0.01, "gradientAccumulationSteps": 2, "numTrainEpochs": 2.0},
    "classification": {"learningRate": 1e-3, "warmupSteps": 20, "weightDecay": 0.01, "lrSchedulerType": "cosine", "numTrainEpochs": 4.0},
}
DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""Two programs draw other masks from the same seed; what they make of the same numbers is compared here."""
OBJECTIVES = {"causal": "causalLanguageModeling", "classification": "classification"}
TRAIN_ROWS, EVALUATION_ROWS, BATCH = 512, 128, 8
TOPICS = ("specialnames", "compound", "types", "string-methods")


def texts() -> list[tuple[str, int]]:
    """Paragraphs of four topics of the reference, and which topic each is from."""
    every = [(" ".join(part.split()), number) for number, name in enumerate(TOPICS) for part in topics[name].split("\n\n")]
    long = [(text, topic) for text, topic in every if len(text) > 60]
    return [long[index] for index in np.random.default_rng(0).permutation(len(long))[: TRAIN_ROWS + EVALUATION_ROWS]]


def write_rows(folder: Path, tokenizer: Any, rows: list[tuple[str, int]], *, task: str) -> RowSet:
    """Tokenise rows, at most 64 tokens each."""
    folder.mkdir()
    with RowSetWriter(folder, vocabulary=len(tokenizer), supervision="all" if task == "causal" else "none") as writer:
        for number, (text, group) in enumerate(rows):
            tokens = np.array(tokenizer(text, truncation=True, max_length=64)["input_ids"], np.int32)
            writer.write(Encoded(tokens, label=group if task == "classification" else -1, content=number))
        writer.close()
    return RowSet.open(folder)


def as_plain(rows: RowSet, index: int, task: str) -> dict[str, Any]:
    """A row as the plain script reads it."""
    tokens = rows.tokens(index).tolist()
    return {"input_ids": tokens, "labels": tokens if task == "causal" else rows.label(index)}


def compare(task: str, folder: Path) -> tuple[float, float]:
    """Our evaluation loss, and the plain script's."""
    make_tiny_llama(folder / "base") if task == "causal" else make_tiny_bert(folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    torch.manual_seed(0)
    kind = AutoModelForCausalLM if task == "causal" else AutoModelForSequenceClassification
    options = {} if task == "causal" else {"num_labels": len(TOPICS)} | DROPOUT
    model = kind.from_pretrained(folder / "base", dtype=torch.float32, **options)
    model.save_pretrained(folder / "first")
    every = texts()
    train = write_rows(folder / "train", tokenizer, every[:TRAIN_ROWS], task=task)
    evaluation = write_rows(folder / "evaluation", tokenizer, every[TRAIN_ROWS:], task=task)
    ours, order = train_ours(task, folder, model, tokenizer, train, evaluation)
    training = TRAINING[task]
    arguments = {
        "learning_rate": training["learningRate"],
        "warmup_steps": training["warmupSteps"],
        "weight_decay": training["weightDecay"],
        "gradient_accumulation_steps": training.get("gradientAccumulationSteps", 1),
        "lr_scheduler_type": training.get("lrSchedulerType", "linear"),
        "per_device_train_batch_size": BATCH,
        "seed": 1,
    }
    spec = {
        "task": task,
        "model": str(folder / "first"),
        "train": [as_plain(train, index, task) for index in order],
        "evaluation": [as_plain(evaluation, index, task) for index in range(len(evaluation))],
        "arguments": arguments,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    script = Path(__file__).with_name("plain_trainer.py")
    output = subprocess.run(
        [sys.executable, "-P", str(script), str(folder / "spec.json")], check=True, capture_output=True, text=True
    ).stdout
    return ours, float(json.loads(output.splitlines()[-1])["loss"])


def train_ours(task: str, folder: Path, model: Any, tokenizer: Any, train: RowSet, evaluation: RowSet) -> tuple[float, list[int]]:
    """Train by our engine; returns the evaluation loss, and the rows in the order in which they were consumed."""
    stage = Stage.model_validate(
        {
            "name": "plain", "objective": OBJECTIVES[task], "data": {"train": [{"uri": "file://rows.jsonl"}]}, "method": {"type": "full"},
            "training": TRAINING[task] | {"perDeviceTrainBatchSize": BATCH},
        }
    )  # fmt: skip
    epoch = open_epoch(RunFolder(folder / "run"), segment=1)
    train_stage(
        model=model, tokenizer=tokenizer, stage=stage, key=KEY, prepared=PreparedStage(train, None, None, np.arange(len(train)), 64),
        precision=resolve_precision(MixedPrecision.AUTO, device=CPU, checkpoint=torch.float32, bf16_capable=False), device=CPU, seed=1,
        folder=epoch.stage_folder(KEY), committer=CheckpointStore(epoch, keep=1), resume=None, reporter=NullReporter(), stop=StopFlag(),
    )  # fmt: skip
    lines = (epoch.stage_folder(KEY) / SAMPLES).read_text().splitlines()
    order = [int(row, 16) for line in lines for batch in json.loads(line)["rows"] for row in batch]
    collator = make_collator(stage.objective, tokenizer, seed=1)
    found = validate(model, evaluation, collator, batch_size=BATCH, device=CPU, should_stop=lambda: False)
    return found["eval_loss"], order


def main() -> int:
    torch.set_num_threads(1)
    disable_progress_bar()  # they would stand in the table
    print(f"{'task':16} {'ours':>9} {'plain script':>13} {'difference':>11}")
    worst = 0.0
    for task in OBJECTIVES:
        with tempfile.TemporaryDirectory() as folder:
            ours, plain = compare(task, Path(folder))
        difference = abs(ours - plain) / plain
        worst = max(worst, difference)
        print(f"{task:16} {ours:9.4f} {plain:13.4f} {difference:11.2%}", flush=True)
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
