"""Every manifest of examples/: valid as it stands, and run to its end on the tiny models, prepared, trained, measured and published."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.methods_page import example
from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.data import AugmentationType
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.method import MethodType
from finetune_api.v1alpha1.regularization import GuardType
from finetune_api.v1alpha1.stage import HandOver
from finetune_api.validation import validate
from scripts.demo_assets import ROOT
from tests.examples.loading import load
from tests.examples.tiny_demo import EXAMPLES, cut, make_tiny_demo, read
from tests.examples.trainer_process import in_process, train

IN_TURN = ("instruction-following-classifier", "early-stopping-instruction-following")
"""Two examples of which the second needs what the first publishes."""
WORDS = ("river", "stone", "water", "house", "tree", "hand", "light", "word", "grass", "bird")


@pytest.fixture(scope="session")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_demo(tmp_path_factory.mktemp("tiny-demo") / "demo")


@pytest.mark.parametrize("name", EXAMPLES)
def test_manifest_is_valid_as_it_stands(name: str) -> None:
    job, problems = validate(read(name))
    assert [str(problem) for problem in problems] == []
    assert job is not None


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in IN_TURN])
def test_example_runs_and_its_result_loads_without_the_project(name: str, tiny_demo: Path, tmp_path: Path) -> None:
    run_and_load(cut(read(name)), {"demo": tiny_demo}, tmp_path)


def test_a_stage_that_learns_its_rows_by_heart_says_that_the_gap_opens(tiny_demo: Path, tmp_path: Path) -> None:
    document = cut(read("train-validation-gap"))
    (stage,) = document["spec"]["stages"]
    stage |= {"evalSteps": 4, "training": stage["training"] | {"maxSteps": 40, "learningRate": 1e-2}}
    # What the tiny model cannot learn but by heart: its demo's definitions are all alike.
    draw = random.Random(0)
    rows = [{"prompt": f"Define: thing {number}", "completion": " ".join(draw.choices(WORDS, k=8))} for number in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage["data"]["train"] = [{"uri": f"file://{tmp_path}/rows.jsonl"}]
    run_and_load(document, {"demo": tiny_demo}, tmp_path)
    says = "while the training loss fell on ("
    assert "warning: stage task: the validation loss" in (tmp_path / "log.txt").read_text()
    assert says in (tmp_path / "run/artifacts/report.html").read_text()


def test_what_one_example_publishes_judges_the_answers_of_the_next(tiny_demo: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for name in IN_TURN:
        result = run_and_load(cut(read(name)), {"demo": tiny_demo, "models": models}, tmp_path / name)
    (stage,) = result["stages"]
    metrics, judge = stage["status"]["metrics"], "pvc://models/answers/merged"
    assert metrics["eval_instruction_following"] in {share / 8 for share in range(9)}, "of the eight rows that the fifth for validation has"
    assert judge in json.loads((tmp_path / name / "run/artifacts/provenance.json").read_text())["datasetHashes"]
    assert json.loads((models / "answers/merged/config.json").read_text())["id2label"] == {"0": "answer", "1": "continuation"}


def run_and_load(document: dict[str, Any], mounts: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Run an example at tiny size, look at what it says, and load what it published in another process. Return result.json."""
    job = FineTuneJob.model_validate(document)
    runtime = Runtime(
        run_folder=str(folder / "run"), base_folder=str(ROOT / "examples"), mounts={key: str(at) for key, at in mounts.items()}, threads=1
    )
    planned = plan(job, runtime=runtime)
    log = folder / "log.txt"
    folder.mkdir(exist_ok=True)
    for segment in planned.segments:
        config = folder / f"{segment.segment.index}.json"
        config.write_text(segment.model_dump_json())
        assert in_process(train, segment.segment.kind, config, log=log) == 0, log.read_text()
    result: dict[str, Any] = json.loads((folder / "run/result.json").read_text())
    assert result["outcome"] == "Succeeded"
    assert {entry["suite"] for entry in result["evaluation"]} == {suite.name for suite in job.spec.evaluation.suites}
    assert all(entry["stages"][-1]["value"] is not None for entry in result["evaluation"]), "measured after the last stage"
    assert {artifact["kind"] for artifact in result["artifacts"]} >= {"report", "modelCard"}
    uri = job.spec.output.uri
    artifacts = mounts["models"] / uri.removeprefix("pvc://models/") if uri else folder / "run/artifacts"
    shared = {stage.name for stage in job.spec.stages if stage.hand_over_scale is not None or stage.hand_over_scale_by is not None}
    said = json.loads((artifacts / "provenance.json").read_text()).get("handOverScales", {})
    assert said.keys() == shared, "what is published says of what share of which change it is made"
    metrics = {stage["status"]["name"]: stage["status"]["metrics"] for stage in result["stages"]}
    assert said == {name: metrics[name]["hand_over_scale"] for name in shared}
    assert all(0 < each["loss"] < 20 for each in metrics.values()), "every stage tells its training loss"
    assert ("of the change" in (artifacts / "README.md").read_text()) is bool(shared)
    assert ("validation loss at handOverScale" in (artifacts / "report.html").read_text()) is bool(shared)
    copied = any(stage.data.augmentation for stage in job.spec.stages)
    assert ("are changed copies (data.augmentation)" in (artifacts / "report.html").read_text()) is copied
    # Loaded in another process, by transformers and peft alone.
    assert in_process(load, artifacts, log=log) == 0, log.read_text()
    return result


def test_demo_runs_as_its_user_runs_it_and_loads_in_a_cold_process(tiny_demo: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "job.yaml"
    manifest.write_text(yaml.safe_dump(cut(read("domain-then-task"))))
    folder = tmp_path / "run"
    program = str(Path(sys.executable).parent / "finetune")
    finetune = [program, "run", str(manifest), "--mount", f"demo={tiny_demo}", "--run-folder", str(folder)]
    ran = subprocess.run([*finetune, "--threads", "1"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for shown in ("base", "after domain", "after task", "in-domain", "knowledge", "tuned model", "report"):
        assert shown in ran.stdout
    # -I: neither this project's folders nor the environment's variables are seen by the loading process.
    command = [sys.executable, "-I", str(ROOT / "tests/examples/loading.py"), str(folder / "artifacts")]
    loaded = subprocess.run(command, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    assert "logits" not in loaded.stdout
    again = subprocess.run(finetune, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "finished already" in again.stdout, "a finished run is not repeated"


def test_every_guard_and_augmentation_has_an_example() -> None:
    stages = [stage for name in EXAMPLES for stage in FineTuneJob.model_validate(read(name)).spec.stages]
    assert {guard.type for stage in stages for guard in stage.regularization or []} == {*GuardType}
    assert {one.type for stage in stages for one in stage.data.augmentation or []} == {*AugmentationType}


def test_every_hand_over_and_objective_has_an_example() -> None:
    stages = [stage for name in EXAMPLES for stage in FineTuneJob.model_validate(read(name)).spec.stages]
    assert {stage.hand_over for stage in stages} == {None, *HandOver}
    objectives = {str(stage.objective) for stage in stages}
    assert objectives == {"causalLanguageModeling", "maskedLanguageModeling", "supervised", "classification"}


@pytest.mark.parametrize("method", MethodType)
def test_every_method_has_an_example_of_its_name(method: MethodType) -> None:
    (stage,) = FineTuneJob.model_validate(read(Path(example(method)).stem)).spec.stages
    assert stage.method.type is method
