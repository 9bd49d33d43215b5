"""What operator and trainer say to each other comes back as it was sent, and a newer partner's fields are let through."""

from __future__ import annotations

import pytest

from finetune_api.base import WireModel
from finetune_api.constants import ExitCode, Reason
from finetune_api.v1alpha1.status import Artifact, CheckpointStatus, EvaluationStatus, Phase, Provenance, StageScore, StageStatus
from finetune_api.wire import Activity, ProgressReport, RunResult, SegmentKind, SegmentRef, StageResult

CHECKPOINT = CheckpointStatus(step=40, uri="pvc://runs/a", sha256="0" * 64, verified=True)
STATUS = StageStatus(name="task", phase=Phase.SUCCEEDED, attempts=1, metrics={"loss": 1.5}, checkpoint=CHECKPOINT)
RESULT = RunResult(
    outcome="Failed",
    exit_code=ExitCode.GATE_FAILED,
    reason=Reason.GATE_FAILED,
    stage="task",
    step=40,
    message="knowledge perplexity is 12 % worse",
    hint="change the training or the gate",
    stages=[StageResult(status=STATUS, steps=40, resumed_from_step=20, steps_lost=3)],
    evaluation=[
        EvaluationStatus(suite="knowledge", metric="perplexity", baseline=10, stages=[StageScore(stage="task", value=11.2)], gate="Failed")
    ],
    artifacts=[Artifact(kind="report", uri="file://r", sha256="1" * 64, bytes=5)],
    provenance=Provenance(seed=7, versions={"torch": "2"}),
)


@pytest.mark.parametrize(
    "message",
    [
        RESULT,
        RunResult(outcome="Succeeded", exit_code=ExitCode.SUCCESS),
        ProgressReport(activity=Activity.HAND_OVER, stage="task", done=3, total=9, percent=33.3, loss=0.5, at=1.5),
        SegmentRef(index=0, kind=SegmentKind.PREPARE, stages=["a", "b"], last=False),
    ],
    ids=["a failed run", "a run", "progress", "a segment"],
)
def test_round_trip(message: WireModel) -> None:
    text = message.model_dump_json()
    assert type(message).model_validate_json(text) == message
    assert "_" not in "".join(type(message).model_validate_json(text).model_dump(mode="json"))


def test_a_newer_partner_may_say_more() -> None:
    text = RunResult(outcome="Succeeded", exit_code=ExitCode.SUCCESS).model_dump_json()[:-1] + ', "sinceV2": 1}'
    assert RunResult.model_validate_json(text).outcome == "Succeeded"
