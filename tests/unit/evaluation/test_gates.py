"""Gates, as a table: what was measured, what is asked for, and the verdict with its sentence."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.v1alpha1.evaluation import Gate, Metric
from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.evaluation.gates import judge
from finetune_trainer.evaluation.results import Estimate, PointResult, SuiteResult, to_status
from finetune_trainer.evaluation.table import cell_text, table

STAGES = ["domain", "task"]


def around(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.1, high=value + 0.1, rows=300)


def point(stage: str | None, **figures: float) -> PointResult:
    metrics = {Metric(name): around(value) for name, value in figures.items()}
    name = "base" if stage is None else f"{STAGES.index(stage)}-{stage}"
    return PointResult(
        point=name, stage=stage, suites=[SuiteResult(name="held-out", objective=Objective.SUPERVISED, rows=300, estimates=metrics)]
    )


def gate(metric: str, **fields: Any) -> Gate:
    return Gate.model_validate({"suite": "held-out", "metric": metric, **fields})


BASE = point(None, loss=5.0, perplexity=10.0, exactMatch=0.45)
DOMAIN = point("domain", loss=4.0, perplexity=10.2, exactMatch=0.60)
TASK = point("task", loss=3.0, perplexity=10.4, exactMatch=0.50)
POINTS = [BASE, DOMAIN, TASK]


@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        pytest.param(gate("loss", minImprovement={"absolute": 2.0}), True, id="loss: lower is better, exactly reached"),
        pytest.param(gate("loss", minImprovement={"absolute": 2.1}), False, id="loss: not enough"),
        pytest.param(gate("loss", minImprovement={"relative": 0.4}), True, id="loss: a share of the base's"),
        pytest.param(gate("loss", minImprovement={"relative": 0.41}), False, id="loss: too small a share"),
        pytest.param(gate("exactMatch", minImprovement={"absolute": 0.05}), True, id="share: 0.50 - 0.45 is 0.05, whatever floats say"),
        pytest.param(
            gate("exactMatch", relativeTo="previousStage", minImprovement={"absolute": 0}), False, id="worse than the stage before"
        ),
        pytest.param(gate("exactMatch", relativeTo="previousStage", maxRegression={"absolute": 0.1}), True, id="as much worse as allowed"),
        pytest.param(gate("perplexity", maxRegression={"relative": 0.03}), False, id="perplexity: 4 % worse than the base"),
        pytest.param(
            gate("perplexity", relativeTo="previousStage", maxRegression={"relative": 0.03}), True, id="2 % since the stage before"
        ),
        pytest.param(gate("loss", maxRegression={"absolute": 0}), True, id="better is no regression"),
    ],
)
def test_the_point_estimate_decides(gate: Gate, passed: bool) -> None:
    verdict = judge([gate], POINTS, "task", stages=STAGES)[0]
    assert verdict.passed is passed
    assert verdict.message.endswith("passed" if passed else "failed")


def test_the_message_shows_both_figures_with_their_intervals() -> None:
    verdict = judge([gate("perplexity", maxRegression={"relative": 0.03})], POINTS, "task", stages=STAGES)[0]
    assert verdict.message == (
        "held-out perplexity after task: 10.40 (95 %: 10.30 to 10.50) against 10.00 (95 %: 9.900 to 10.10) of the base model: "
        "0.400 worse, at most 0.300 worse is asked for: failed"
    )


def test_a_gate_is_judged_after_its_own_stage_only() -> None:
    early, late = gate("loss", stage="domain", minImprovement={"absolute": 0.5}), gate("loss", minImprovement={"absolute": 0.5})
    assert [verdict.gate for verdict in judge([early, late], POINTS, "domain", stages=STAGES)] == [early]
    assert [verdict.gate for verdict in judge([early, late], POINTS, "task", stages=STAGES)] == [late]


def test_the_stage_before_the_first_is_the_base() -> None:
    verdict = judge(
        [gate("loss", stage="domain", relativeTo="previousStage", minImprovement={"absolute": 1})], POINTS, "domain", stages=STAGES
    )[0]
    assert (verdict.reference_point, verdict.improvement) == ("the base model", 1.0)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([TASK], "no figure for the base model: it was not measured"),
        ([BASE], "no figure for task: it was not measured"),
        ([BASE, point("task", loss=3.0)], "no figure for task: the suite has nothing that this metric counts"),
    ],
)
def test_a_gate_without_figures_is_not_passed_and_says_why(points: list[PointResult], reason: str) -> None:
    verdict = judge([gate("perplexity", maxRegression={"relative": 0.5})], points, "task", stages=STAGES)[0]
    assert not verdict.passed
    assert reason in verdict.message


def test_a_head_that_is_not_there_gives_its_reason() -> None:
    headless = PointResult(
        point="1-task",
        stage="task",
        suites=[SuiteResult(name="held-out", objective=Objective.CLASSIFICATION, not_applicable="no head was trained")],
    )
    verdict = judge([gate("accuracy", minImprovement={"absolute": 0})], [BASE, headless], "task", stages=STAGES)[0]
    assert "no figure for task: no head was trained" in verdict.message


def test_status_and_table_show_the_base_every_stage_and_the_verdict() -> None:
    gates = judge([gate("loss", minImprovement={"absolute": 9})], POINTS, "task", stages=STAGES)
    status = to_status([BASE, DOMAIN, TASK.model_copy(update={"gates": gates})])
    loss = status[0]
    assert (loss.suite, loss.metric, loss.baseline, loss.delta, loss.gate) == ("held-out", "loss", 5.0, -2.0, "Failed")
    assert [(score.stage, score.value, score.low) for score in loss.stages] == [("domain", 4.0, 3.9), ("task", 3.0, 2.9)]
    rows = table(status)
    assert [cell.point for cell in rows[0].cells] == ["base", "domain", "task"]
    assert cell_text(rows[0].cells[0], "loss") == "5.000 (4.900–5.100)"
    assert rows[0].improvement == 2.0
    assert rows[2].improvement == pytest.approx(0.05)
    assert status[1].gate is None


def test_a_metric_that_one_point_lacks_keeps_its_place() -> None:
    status = to_status([BASE, point("domain", loss=4.0), TASK])
    exact = next(entry for entry in status if entry.metric == "exactMatch")
    assert [(score.stage, score.value) for score in exact.stages] == [("domain", None), ("task", 0.5)]
