"""The arms of a run on disk: which seed is published and why, whose folder a result tells of, and where a process went on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_api.arms import arms
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob, FineTuneJobSpec
from finetune_trainer import arms as on_disk
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.journal import Event, Journal
from finetune_trainer.evaluation.records import RowRecords
from finetune_trainer.evaluation.results import BASE, Estimate, PointResult, SuiteResult, point_path, rows_path, write
from finetune_trainer.run_folder import RunFolder
from tests.builders import edited
from tests.manifests.arms import COMPARED, SEVERAL

STOPPING = {"spec.stages[1].evalSteps": 5, "spec.stages[1].training": {"earlyStopping": {"metric": "eval_token_accuracy"}}}
BEST = {**STOPPING, "spec.stages[1].handOverWeights": "best"}


def spec_of(document: dict[str, Any], edits: dict[str, Any] | None = None) -> FineTuneJobSpec:
    return FineTuneJob.model_validate(edited(document, edits or {})).spec


def finish(run: RunFolder, spec: FineTuneJobSpec, losses: dict[str, float], **record: Any) -> None:
    """Leave what every arm leaves whose last suite metric, and validation loss, is told by its name."""
    for arm in arms(spec):
        at = on_disk.folder(run, spec, arm)
        for index, stage in enumerate(arm.stages):
            value = losses[arm.name]
            stages = at.epochs / "0001/stages" / f"{index}-{stage.name}"
            stages.mkdir(parents=True)
            metrics = {"eval_loss": value, "eval_token_accuracy": 1 - value / 10}
            (stages / on_disk.RESOLVED).write_text(
                json.dumps({"metrics": metrics, "steps": 9, "stepUsed": 9, "best": 0.9 - value, **record})
            )
            point = f"{index}-{stage.name}"
            rows = RowRecords.empty([f"row-{number}" for number in range(20)])
            rows.nll[:] = value + np.linspace(-0.1, 0.1, 20)
            rows.tokens[:] = 1
            rows.save(rows_path(at.evaluation, point, "in-domain"))
            estimate = Estimate(value=value, low=value, high=value, rows=20)
            suite = SuiteResult(name="in-domain", objective=stage.objective, estimates={"loss": estimate})
            write(point_path(at.evaluation, point), PointResult(point=point, stage=stage.name, suites=[suite]))


@pytest.mark.parametrize(
    ("edits", "published", "metric"),
    [({}, 2, "eval_loss"), (STOPPING, 2, "eval_token_accuracy"), (BEST, 2, "eval_token_accuracy")],
    ids=["the lowest loss", "the highest of early stopping's metric", "at the best step"],
)
def test_the_published_seed_is_the_best_on_validation_rows(tmp_path: Path, edits: dict[str, Any], published: int, metric: str) -> None:
    run, spec = RunFolder(tmp_path), spec_of(SEVERAL, edits)
    finish(run, spec, {"seed-1": 3.2, "seed-2": 3.0, "seed-3": 3.1})
    chosen, result = on_disk.choose(run, spec)
    assert result.seeds is not None
    assert (chosen.seed, result.seeds.published, result.seeds.metric) == (published, published, metric)
    assert f"seed {published} has the" in result.seeds.reason and [score.seed for score in result.seeds.scores] == [1, 2, 3]
    assert [spread.values for spread in result.spreads] == [[3.2, 3.0, 3.1]] * 2
    assert on_disk.read(run) == result
    assert on_disk.shown(run, spec).root.name == f"seed-{published}", "results and report tell of it from now on"


def test_of_equal_seeds_the_first_is_published(tmp_path: Path) -> None:
    run, spec = RunFolder(tmp_path), spec_of(SEVERAL)
    finish(run, spec, dict.fromkeys(("seed-1", "seed-2", "seed-3"), 3.0))
    assert on_disk.choose(run, spec)[0].seed == 1


@pytest.mark.parametrize(("direct", "verdict"), [(3.5, "Helped"), (2.5, "Hurt"), (3.0, "Unclear")])
def test_one_seeds_comparison_is_paired_over_rows(tmp_path: Path, direct: float, verdict: str) -> None:
    run, spec = RunFolder(tmp_path), spec_of(COMPARED)
    finish(run, spec, {"seed-42": 3.0, "seed-42-direct": direct})
    chosen, known = on_disk.choose(run, spec)
    result = on_disk.compare(run, spec, known, draws={"in-domain": 1, "knowledge": 1})
    assert (chosen.name, known.seeds) == ("seed-42", None)
    (found,) = result.comparisons
    assert (found.verdict, found.over, found.direct) == (verdict, "20 rows", [direct])
    assert [(one.arm, one.stage, one.steps) for one in result.lengths] == [
        ("staged", "domain", 9),
        ("staged", "task", 9),
        ("direct", "task", 9),
    ]


def test_an_arm_is_done_once_its_last_stage_is_measured(tmp_path: Path) -> None:
    run, spec = RunFolder(tmp_path), spec_of(COMPARED)
    arm = arms(spec)[1]
    at = on_disk.folder(run, spec, arm)
    assert not on_disk.done(at, arm, measured=True)
    finish(run, spec, {"seed-42": 3.0, "seed-42-direct": 3.0})
    assert on_disk.done(at, arm, measured=True)
    point_path(at.evaluation, "0-task").unlink()
    assert not on_disk.done(at, arm, measured=True) and on_disk.done(at, arm, measured=False)


def test_a_process_went_on_where_it_opened_its_first_arm(tmp_path: Path) -> None:
    run, spec = RunFolder(tmp_path), spec_of(SEVERAL)
    for moment, (name, step) in enumerate([("seed-2", 40), ("seed-3", None), ("seed-2", 60)]):
        at = RunFolder(run.arms / name)
        at.root.mkdir(parents=True, exist_ok=True)
        Journal(at.journal, FileLayer(), clock=lambda moment=moment: float(moment)).append(Event.START, epoch=1, resumedFromStep=step)
    (start,) = on_disk.starts(run, spec)
    assert (start["arm"], start["resumedFromStep"]) == ("seed 2", 40)
    assert on_disk.shown(run, spec).root.name == "seed-3", "until the choice, the last that has begun"


def test_the_base_is_measured_once_and_shared(tmp_path: Path) -> None:
    run, arm = RunFolder(tmp_path), RunFolder(tmp_path / "arms/seed-1")
    on_disk.share_base(run, arm)
    assert not arm.evaluation.exists(), "a job without a baseline shares none"
    RowRecords.empty(["a"]).save(rows_path(run.evaluation, BASE, "in-domain"))
    write(point_path(run.evaluation, BASE), PointResult(point=BASE))
    on_disk.share_base(run, arm)
    assert rows_path(arm.evaluation, BASE, "in-domain").exists() and point_path(arm.evaluation, BASE).exists()
