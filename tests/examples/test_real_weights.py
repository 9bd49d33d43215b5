"""The real weights, once: SmolLM2 through both stages of the demo, and MiniLM as a classifier, with fewer steps and rows than the examples."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from scripts.demo_assets import demo_folder
from tests.examples.tiny_demo import read
from tests.examples.trainer_process import in_process, train


@pytest.fixture(scope="session")
def demo() -> Path:
    return demo_folder()


def shorter(demo: Path, folder: Path, model: str, rows: dict[str, int]) -> Path:
    """The demo's folder with one of its real models, and the first rows of some files. A copy: links that leave a claim are refused."""
    (folder / "data").mkdir(parents=True)
    shutil.copytree(demo / "models" / model, folder / "models" / model)
    for name, count in rows.items():
        lines = (demo / f"data/{name}.jsonl").read_text().splitlines(keepends=True)
        (folder / f"data/{name}.jsonl").write_text("".join(lines[:count]))
    return folder


def run(document: dict[str, Any], mount: Path, folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Run a job to its end; return the evaluation by suite and metric."""
    job = FineTuneJob.model_validate(document)
    planned = plan(job, runtime=Runtime(run_folder=str(folder / "run"), mounts={"demo": str(mount)}, threads=1))
    log = folder / "log.txt"
    for segment in planned.segments:
        config = folder / f"{segment.segment.index}.json"
        config.write_text(segment.model_dump_json())
        assert in_process(train, segment.segment.kind, config, log=log) == 0, log.read_text()
    result = json.loads((folder / "run/result.json").read_text())
    return {(entry["suite"], entry["metric"]): entry for entry in result["evaluation"]}


def test_smollm2_gets_better_at_the_task_in_a_few_steps(demo: Path, tmp_path: Path) -> None:
    rows = {"glosses-1000": 64, "definitions-150": 64, "definitions-test": 24, "python-reference": 4}
    mount = shorter(demo, tmp_path / "demo", "smollm2-135m-instruct", rows)
    document = read("domain-then-task")
    for stage in document["spec"]["stages"]:
        stage["training"].pop("numTrainEpochs")
        stage["training"] |= {"maxSteps": 6, "perDeviceTrainBatchSize": 8}
    document["spec"]["evaluation"]["samples"] = {"count": 1, "maxNewTokens": 8}
    document["spec"]["evaluation"]["gates"] = []
    loss = run(document, mount, tmp_path)["in-domain", "loss"]
    after = {stage["stage"]: stage["value"] for stage in loss["stages"]}
    assert loss["baseline"] > 4.5, "the base does not know WordNet's manner"
    assert after["task"] < loss["baseline"] - 0.3
    assert after["task"] < after["domain"]


def test_minilm_learns_the_noun_classes_beyond_the_majority(demo: Path, tmp_path: Path) -> None:
    mount = shorter(demo, tmp_path / "demo", "minilm-l6", {"noun-classes-train": 208, "noun-classes-test": 200})
    labels = [json.loads(line)["label"] for line in (mount / "data/noun-classes-test.jsonl").read_text().splitlines()]
    majority = Counter(labels).most_common(1)[0][1] / len(labels)
    document = read("classification-lora")
    accuracy = run(document, mount, tmp_path)["noun-classes", "accuracy"]["stages"][-1]["value"]
    assert accuracy > majority + 0.05
