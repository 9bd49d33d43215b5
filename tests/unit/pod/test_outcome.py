"""What a stage came to, read back from the journal of its run."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_api.constants import ExitCode, Reason
from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.wire import RunResult
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.journal import Event, Journal
from finetune_trainer.outcome import complete
from tests.builders import job, stage

FAILED = {"outcome": "Failed", "exit_code": ExitCode.DIVERGED, "reason": Reason.LOSS_DIVERGED}
STOPPED = {"outcome": "Stopped", "exit_code": ExitCode.STOPPED, "reason": Reason.STOPPED}


@pytest.mark.parametrize(("end", "over"), [(FAILED, True), (STOPPED, False)], ids=["failed", "stopped"])
def test_a_stage_tells_its_times_as_kubernetes_does_and_an_end_only_where_it_ended(
    tmp_path: Path, end: dict[str, object], over: bool
) -> None:
    found = FineTuneJob.model_validate(job(stage("domain")))
    (*_, config) = plan(found, runtime=Runtime(run_folder=str(tmp_path), base_folder=str(tmp_path))).segments
    moments = iter([1893499200.25, 1893499260.5])
    journal = Journal(tmp_path / "journal.jsonl", FileLayer(), clock=lambda: next(moments))
    journal.append(Event.STAGE, epoch=1, stage="0-domain")
    journal.append(Event.COMMIT, epoch=1, stage="0-domain", step=40, evaluation="none", sha256="a" * 64)
    status = complete(RunResult.model_validate({**end, "stage": "domain"}), config).stages[0].status
    assert status.started_at == "2030-01-01T12:00:00Z"
    assert status.finished_at == ("2030-01-01T12:01:00Z" if over else None)
    assert status.attempts == 1 and status.checkpoint is not None and status.checkpoint.step == 40
