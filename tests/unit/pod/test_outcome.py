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


def test_a_process_with_the_host_and_the_pid_of_the_one_before_is_another(tmp_path: Path) -> None:
    """As in a container that is started again: it has the same name, and its first process the same number."""
    found = FineTuneJob.model_validate(job(stage("domain")))
    (*_, config) = plan(found, runtime=Runtime(run_folder=str(tmp_path), base_folder=str(tmp_path))).segments
    journal = Journal(tmp_path / "journal.jsonl", FileLayer())
    journal.append(Event.START, epoch=1, process="of the one before", start=None, resumedFromStep=None, stepsLost=0)
    journal.append(Event.STAGE, epoch=1, stage="0-domain", process="of the one before")
    ended = complete(RunResult.model_validate({**STOPPED, "stage": "domain"}), config)
    assert (ended.stages[0].status.attempts, ended.steps_lost) == (1, None), "this one has not begun"
    start = {"stage": "0-domain", "step": 40}
    journal.append(Event.START, epoch=2, start=start, resumedFromStep=40, stepsLost=3)
    journal.append(Event.STAGE, epoch=2, stage="0-domain")
    ended = complete(RunResult.model_validate({**STOPPED, "stage": "domain"}), config)
    assert (ended.stages[0].status.attempts, ended.steps_lost, ended.stages[0].steps_lost) == (2, 3, 3)
