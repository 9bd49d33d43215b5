"""A small stand-in for the demo's folder, and manifests cut to a few steps, so that an example runs in seconds on the tiny models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from scripts.demo_assets import ROOT, WRITTEN
from scripts.demo_wordnet import ANIMAL, PLANT, Noun, Row, chat_row, class_row, domain_row, task_row
from tests.tiny import make_tiny_bert, make_tiny_llama

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.yaml"))
FEW_STEPS = 3
STEPS_OF = {"aflora": 16}
"""What needs more: the scores that matrices are frozen by are there after ten."""
OF_TWO_LAYERS: dict[str, dict[str, Any]] = {
    "partial": {"trained": ["model.layers.1.*"]},
    "gradual": {"everySteps": 1},
    "adalora": {"interval": 1},
    "trainableTokens": {"tokens": ["a", "e"]},
}
"""What names layers and words of the real model, or counts its steps, for the tiny one."""
_ADJECTIVES = ("small", "large", "common", "wild", "tall", "slender", "northern", "tropical")
_KINDS = ((ANIMAL, "beetle", "that lives in dry grass"), (PLANT, "shrub", "with bright flowers in spring"))


def nouns(count: int, first: int = 0) -> list[Noun]:
    """Distinct nouns, animals and plants by turns."""
    found = []
    for number in range(first, first + count):
        file, kind, tail = _KINDS[number % 2]
        adjective = _ADJECTIVES[number % len(_ADJECTIVES)]
        found.append(Noun((f"{kind} {number}",), f"a {adjective} {kind} number {number} {tail}", file))
    return found


def make_tiny_demo(folder: Path) -> Path:
    """Write the files that the examples name, with tiny models and some dozen rows each."""
    make_tiny_llama(folder / "models/smollm2-135m-instruct")
    make_tiny_bert(folder / "models/minilm-l6")
    train, test, chats = nouns(40), nouns(12, first=100), nouns(24, first=200)
    classes = {ANIMAL: "animal", PLANT: "plant"}
    files: dict[str, list[Row]] = {
        "glosses-1000": [domain_row(noun) for noun in train],
        "glosses-2000": [domain_row(noun) for noun in train],
        "definitions-150": [task_row(noun) for noun in train],
        "definitions-200": [task_row(noun) for noun in train],
        "definitions-test": [task_row(noun) for noun in test],
        "chat-train": [chat_row(noun) for noun in chats],
        "chat-test": [chat_row(noun) for noun in test],
        "noun-classes-train": [class_row(noun, classes) for noun in train],
        "noun-classes-test": [class_row(noun, classes) for noun in test],
        "python-reference": [
            {"text": f"The statement number {number} returns a value from the function that is called."} for number in range(8)
        ],
    }
    (folder / "data").mkdir()
    for name, rows in files.items():
        (folder / f"data/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for tickets in WRITTEN.glob("*.jsonl"):
        shutil.copyfile(tickets, folder / "data" / tickets.name)
    return folder


def read(name: str) -> dict[str, Any]:
    """An example as it stands in the repository."""
    document: dict[str, Any] = yaml.safe_load((ROOT / f"examples/{name}.yaml").read_text())
    return document


def cut(document: dict[str, Any]) -> dict[str, Any]:
    """The same manifest for the tiny models: few steps, small batches, gates that only a broken evaluation misses. Nothing else changes."""
    spec = document["spec"]
    for stage in spec["stages"]:
        training = stage["training"]
        training.pop("numTrainEpochs")
        training |= {"maxSteps": STEPS_OF.get(stage["method"]["type"], FEW_STEPS), "perDeviceTrainBatchSize": 4}
        stage["checkpoint"] = {"everySteps": 2}
        if "evalSteps" in stage:
            stage["evalSteps"] = 2
        for name, options in OF_TWO_LAYERS.items():
            if name in stage["method"]:
                stage["method"][name] = {"share": 0.5} if "share" in stage["method"][name] else stage["method"][name] | options
        stage["method"].get("gradual", {}).pop("everyEpochs", None)
        if "layersToTransform" in stage["method"].get("lora", {}):
            stage["method"]["lora"]["layersToTransform"] = [1]
    for gate in spec["evaluation"].get("gates", []):
        gate.pop("minImprovement", None)
        gate["maxRegression"] = {"relative": 1.0}
    spec["evaluation"].setdefault("samples", {})["maxNewTokens"] = 4
    return document
