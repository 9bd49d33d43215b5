"""Each objective by full and by LoRA, a method of each kind, and everything that a resume could get wrong spread over them."""

from __future__ import annotations

from typing import Any, Final

Document = dict[str, Any]

LORA: Final[Document] = {"type": "lora", "lora": {"r": 4, "alpha": 8, "dropout": 0.1}}
EVA: Final = {"type": "lora", "lora": {**LORA["lora"], "initialization": "eva", "initializationRows": 16, "layersToTransform": [0, 1]}}
ADAPTER: Final = {"type": "adapter", "adapter": {"place": "houlsby", "size": 8, "dropout": 0.1}}
PROMPT: Final = {"type": "promptTuning", "promptTuning": {"numVirtualTokens": 4}}
QLORA: Final = {"type": "qlora", "qlora": {"r": 4, "alpha": 8, "dropout": 0.1}}
FULL: Final = {"type": "full"}
DATA: Final = {
    "causalLanguageModeling": "glosses-1000",
    "maskedLanguageModeling": "glosses-1000",
    "supervised": "definitions-150",
    "classification": "noun-classes-train",
}
LLAMA: Final = "models/smollm2-135m-instruct"
BERT: Final = "models/minilm-l6"


def stage(name: str, objective: str, method: Document, training: Document, **fields: Any) -> Document:
    validation = {"validation": {"fraction": 0.25}} if "evalSteps" in fields else {}
    return {
        "name": name,
        "objective": objective,
        "data": {"train": [{"uri": f"file://data/{DATA[objective]}.jsonl"}], **validation},
        "method": method,
        "training": {
            "maxSteps": 24,
            "perDeviceTrainBatchSize": 4,
            "learningRate": 1e-3,
            "maxLength": 64,
            "loggingSteps": 3,
            "warmupSteps": 0,
            **training,
        },
        "checkpoint": {"everySteps": 4, "keep": 2, **fields.pop("checkpoint", {})},
        **fields,
    }


def suite(objective: str, *metrics: str) -> Document:
    data = {"supervised": "definitions-test", "classification": "noun-classes-test"}.get(objective, "python-reference")
    return {
        "suites": [{"name": "held-out", "objective": objective, "data": {"uri": f"file://data/{data}.jsonl"}, "metrics": list(metrics)}]
    }


EARLY: Final = {"evalSteps": 4, "handOverWeights": "best"}
STOPPING: Final = {"metric": "eval_loss", "patience": 2, "threshold": 0.3}

CONFIGURATIONS: Final[dict[str, Document]] = {
    "causal language modelling, full: packing, accumulation, cosine": {
        "model": LLAMA,
        "stages": [
            stage(
                "domain",
                "causalLanguageModeling",
                FULL,
                {"packing": True, "gradientAccumulationSteps": 2, "lrSchedulerType": "cosine", "warmupSteps": 5},
            )
        ],
        "evaluation": {**suite("causalLanguageModeling", "loss"), "baseline": True},
    },
    "causal language modelling, LoRA: a share of it merged, then EVA": {
        "model": LLAMA,
        "stages": [
            stage("domain", "causalLanguageModeling", LORA, {"groupByLength": True}, handOver="merge", handOverScaleBy="validation"),
            stage("task", "supervised", EVA, {"gradientAccumulationSteps": 2, "maxSteps": 12}, evalSteps=12),
        ],
    },
    "masked language modelling, full: dropout, length groups, plain saves": {
        "model": BERT,
        "stages": [
            stage(
                "domain",
                "maskedLanguageModeling",
                FULL,
                {"dropout": 0.2, "groupByLength": True, "weightDecay": 0.1},
                checkpoint={"asynchronous": False, "keep": 1},
            )
        ],
    },
    "masked language modelling, LoRA, then bottlenecks: adafactor, accumulation, validation": {
        "model": BERT,
        "stages": [
            stage(
                "first",
                "maskedLanguageModeling",
                LORA,
                {"optimizer": "adafactor", "gradientAccumulationSteps": 3, "maxSteps": 12},
                evalSteps=5,
                handOver="merge",
            ),
            stage("second", "maskedLanguageModeling", ADAPTER, {"optimizer": "adafactor", "maxSteps": 12}),
        ],
    },
    "supervised, full: early stopping, the best weights": {
        "model": LLAMA,
        "stages": [
            stage("task", "supervised", FULL, {"learningRate": 3e-3, "dropout": 0.1, "earlyStopping": STOPPING, "maxSteps": 40}, **EARLY)
        ],
        "evaluation": {**suite("supervised", "loss"), "baseline": False},
    },
    "supervised, LoRA: QLoRA stacked on it, accumulation at unequal lengths, evaluations": {
        "model": LLAMA,
        "stages": [
            stage("first", "supervised", LORA, {"gradientAccumulationSteps": 4, "maxSteps": 10}, handOver="stack"),
            stage("second", "supervised", QLORA, {"lrSchedulerType": "constant", "warmupSteps": 3}, evalSteps=6),
        ],
    },
    "supervised, gradual unfreezing, then AFLoRA, then a prompt: what freezes when": {
        "model": LLAMA,
        "stages": [
            stage("first", "supervised", {"type": "gradual", "gradual": {"everySteps": 4}}, {"maxSteps": 12}, handOver="continue"),
            stage(
                "second",
                "supervised",
                {"type": "aflora", "aflora": {"r": 4, "initialSteps": 4, "finalShare": 0.2}},
                {"maxSteps": 18},
                handOver="merge",
            ),
            stage("third", "supervised", PROMPT, {"maxSteps": 6, "learningRate": 1e-2}),
        ],
    },
    "classification, full: after masked language modelling, dropout, early stopping": {
        "model": BERT,
        "stages": [
            stage("domain", "maskedLanguageModeling", FULL, {"maxSteps": 8, "dropout": 0.1}, handOver="continue"),
            stage(
                "task", "classification", FULL, {"dropout": 0.1, "earlyStopping": {"metric": "eval_accuracy", "patience": 2}}, evalSteps=4
            ),
        ],
        "evaluation": {**suite("classification", "accuracy"), "baseline": False},
    },
    "classification, LoRA, then vectors: momentum-free SGD, dropout, one checkpoint kept": {
        "model": BERT,
        "stages": [
            stage(
                "task",
                "classification",
                LORA,
                {"optimizer": "sgd", "learningRate": 0.05, "dropout": 0.1, "maxSteps": 16},
                checkpoint={"keep": 1},
                evalSteps=6,
                handOver="merge",
            ),
            stage(
                "more", "classification", {"type": "ia3"}, {"optimizer": "sgd", "learningRate": 0.05, "maxSteps": 8}, checkpoint={"keep": 1}
            ),
        ],
    },
}
"""Name → spec, with the model's folder in the place of its URI."""


ARMS: Final[dict[str, Document]] = {
    "two seeds, and the task alone for comparison": {
        "model": LLAMA,
        "seeds": [11, 12],
        "stages": [
            stage("domain", "causalLanguageModeling", LORA, {"maxSteps": 6}, handOver="merge"),
            stage("task", "supervised", LORA, {"maxSteps": 6}, evalSteps=3, compareWith="direct", checkpoint={"everySteps": 2}),
        ],
        "evaluation": {**suite("supervised", "loss"), "baseline": True},
    },
}
"""A job of several arms: struck where arms meet, not all over (`test_arms.py`)."""


def manifest(configuration: Document, demo: str) -> Document:
    """The FineTuneJob of a configuration."""
    spec = {
        **({} if "seeds" in configuration else {"seed": 11}),
        "evaluation": {"baseline": False},
        **configuration,
        "model": {"uri": f"file://{demo}/{configuration['model']}"},
    }
    return {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "resume"}, "spec": spec}
