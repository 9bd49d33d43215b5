"""The caps of spec.retry, counted from the journal."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.constants import ClusterReason, ExitCode, Reason
from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.wire import PodConfig, TrainerConfig
from finetune_trainer.checkpoint.starts import Starts, starts
from finetune_trainer.ending import over_the_caps
from tests.builders import job, stage

Event = dict[str, Any]


def process(attempt: int, segment: int = 1, command: str = "train") -> Event:
    return {"event": "process", "attempt": attempt, "segment": segment, "command": command}


def end(attempt: int, outcome: str = "Failed", segment: int = 1) -> Event:
    why = {"reason": "StorageFull", "exitCode": 30, "message": f"full {attempt}"} if outcome == "Failed" else {}
    return {"event": "end", "attempt": attempt, "segment": segment, "command": "train", "outcome": outcome, **why}


CASES: dict[str, tuple[list[Event], int, int]] = {
    # the journal: disruptions, failures
    "the first start": ([process(1)], 0, 0),
    "killed and replaced by its Job": ([process(1), process(1)], 1, 0),
    "stopped, saved and replaced by its Job": ([process(1), end(1, "Stopped"), process(1)], 1, 0),
    "suspended and resumed": ([process(1), end(1, "Stopped"), process(2)], 0, 0),
    "killed, and the operator made the next Job": ([process(1), process(2)], 0, 0),
    "failed twice": ([process(1), end(1), process(2), end(2), process(3)], 0, 2),
    "replaced, then failed": ([process(1), process(1), end(1), process(2)], 1, 1),
    "other segments and commands": ([process(1, 0, "prepare"), process(1, 0, "prepare"), process(1, 2), process(1, 2), process(1)], 0, 0),
    "a local run's starts": ([{**process(1), "attempt": None}, process(1)], 0, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_counts(case: str) -> None:
    events, disruptions, failures = CASES[case]
    counted = starts(events, segment=1, command="train")
    assert (counted.disruptions, len(counted.failures)) == (disruptions, failures)


def config(**retry: int) -> TrainerConfig:
    found = FineTuneJob.model_validate(job(stage("domain"), retry=retry))
    pod = PodConfig(attempt=3, run_uri="pvc://runs/a/b")
    return plan(found, runtime=Runtime(run_folder="/finetune/run/a/b")).segments[1].model_copy(update={"pod": pod})


def failures(count: int) -> tuple[Event, ...]:
    return tuple(end(number) for number in range(1, count + 1))


@pytest.mark.parametrize(
    ("disruptions", "failed", "reason", "code", "says"),
    [
        (0, 0, None, None, ""),
        (4, 1, None, None, ""),
        (
            5,
            0,
            ClusterReason.TOO_MANY_DISRUPTIONS,
            ExitCode.INTERNAL,
            "segment domain was disrupted 5 times, and retry.maxPreemptions is 4",
        ),
        (0, 2, Reason.STORAGE_FULL, ExitCode.STORAGE, "2 attempts of segment domain failed, and retry.maxAttempts is 2; the last: full 2"),
    ],
)
def test_caps(disruptions: int, failed: int, reason: object, code: object, says: str) -> None:
    refused = over_the_caps(Starts(disruptions, failures(failed)), config(maxAttempts=2, maxPreemptions=4))
    assert (refused and refused.reason, refused and refused.exit_code, refused.message if refused else "") == (reason, code, says)
