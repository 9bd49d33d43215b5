"""Ends of a trainer that are no success, told apart: by memory, by the cluster, by codes of the contract and others, with and without words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from finetune_api.constants import AttemptReason, ClusterReason, Reason
from finetune_operator.kinds import FINE_TUNE_JOB
from tests.apiserver.puppet import Puppet
from tests.apiserver.trouble import Scene
from tests.apiserver.trouble_job import Trial, pages, published, said, stopped
from tests.cluster.api import Api, Object
from tests.cluster.pods import evict, pod_path

ONCE: Final = {"maxAttempts": 1, "maxPreemptions": 0}


@dataclass(frozen=True)
class End:
    """How a container ends for good, and what the job says of it."""

    name: str
    code: int
    reason: str
    message: str
    """A part of failure.message."""
    words: str = ""
    """The termination message."""
    kubelet: str = ""
    """The kubelet's word for it."""
    failure: dict[str, Any] = field(default_factory=dict)
    """What else failure says."""


ENDS: Final = (
    End("no-message", 1, Reason.INTERNAL_ERROR, "exit code 1, and left no message (attempt 1 of 1)"),
    End("cut-message", 1, Reason.INTERNAL_ERROR, "and its last message is cut", words=said("Failed", 1, message="x" * 99)[:60]),
    End(
        "a-log",
        1,
        Reason.INTERNAL_ERROR,
        "exit code 1",
        words="Traceback:\n  here\nKeyError: 7",
        failure={"lastLogLines": ["Traceback:", "  here", "KeyError: 7"]},
    ),
    End("no-code-of-ours", 3, ClusterReason.UNKNOWN_EXIT, "exit code 3, and left no message", failure={"exitCode": 3}),
    End("killed", 137, ClusterReason.UNKNOWN_EXIT, "exit code 137", failure={"exitCode": 137}),
    End("out-of-memory", 137, ClusterReason.MEMORY_LIMIT_EXCEEDED, "reached its memory limit", kubelet="OOMKilled"),
    End(
        "hung",
        40,
        Reason.STALLED,
        "no step ended for 600 s",
        words=said("Failed", 40, reason=Reason.STALLED, message="no step ended for 600 s"),
    ),
    End(
        "bad-data",
        11,
        Reason.DATA_INVALID,
        "train.jsonl line 3: prompt is missing",
        words=said(
            "Failed", 11, reason=Reason.DATA_INVALID, stage="task", message="train.jsonl line 3: prompt is missing", hint="write a prompt"
        ),
        failure={"hint": "write a prompt (docs/reference/failures.md#datainvalid)", "stage": "task", "exitCode": 11},
    ),
    End("not-allowed", 12, Reason.SOURCE_FORBIDDEN, "401", words=said("Failed", 12, reason=Reason.SOURCE_FORBIDDEN, message="it said 401")),
    End("full", 30, Reason.STORAGE_FULL, "no space left", words=said("Failed", 30, reason=Reason.STORAGE_FULL, message="no space left")),
)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.name)
def test_an_end_for_good_says_why(stage: Scene, end: End) -> None:
    trial = stage.trial(end.name, spec__retry=ONCE)
    stage.puppet.finish(trial.start(), end.code, end.words, reason=end.kubelet)
    failure = trial.await_failed(end.reason)
    assert end.message in failure["message"]
    assert {name: failure[name] for name in end.failure} == end.failure
    assert trial.budgets() == [(1, 0)]
    assert len(trial.batch_jobs()) == 1


def _evicted(api: Api, puppet: Puppet, trial: Trial, pod: Object) -> None:
    evict(api, pod)
    trial.stop(trial.await_stopping(pod), 75, stopped(40))


def _preempted(api: Api, puppet: Puppet, trial: Trial, pod: Object) -> None:
    puppet.disrupt(pod, "PreemptionByScheduler", "somebody is more important")
    api.delete(pod_path(pod))
    trial.stop(trial.await_stopping(pod), 143)


def _deleted(api: Api, puppet: Puppet, trial: Trial, pod: Object) -> None:
    api.delete(pod_path(pod))
    trial.stop(trial.await_stopping(pod), 75, stopped(40))


def _without_memory(api: Api, puppet: Puppet, trial: Trial, pod: Object) -> None:
    """The kubelet makes room on its node: 137 too, and not the trainer's fault."""
    disrupted = puppet.disrupt(pod, "TerminationByKubelet", "The node was low on resource: memory.")
    puppet.finish(disrupted, 137)


def _not_admitted(api: Api, puppet: Puppet, trial: Trial, pod: Object) -> None:
    bare = {**pod, "status": {}}
    puppet.refuse(bare, "UnexpectedAdmissionError", "Allocate failed due to no healthy devices present")


@pytest.mark.parametrize(
    ("name", "reason", "happens", "runs"),
    [
        ("evicted", AttemptReason.EVICTED, _evicted, True),
        ("preempted", AttemptReason.PREEMPTED, _preempted, True),
        ("pod-deleted", AttemptReason.POD_DELETED, _deleted, True),
        ("node-out-of-memory", AttemptReason.EVICTED, _without_memory, True),
        ("not-admitted", AttemptReason.NOT_ADMITTED, _not_admitted, False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_disruption_is_not_an_attempt_and_has_a_cap_of_its_own(
    stage: Scene, name: str, reason: str, happens: Callable[[Api, Puppet, Trial, Object], None], runs: bool
) -> None:
    trial = stage.trial(name, spec__retry=ONCE)
    trial.submit()
    pod = trial.run() if runs else trial.await_pod()
    happens(stage.api, stage.puppet, trial, pod)
    stage.operator.advance(11)
    failure = trial.await_failed(ClusterReason.TOO_MANY_DISRUPTIONS)
    assert f"1 disruptions, and retry.maxPreemptions is 0; the last was {reason}" in failure["message"]
    assert trial.attempts()[0] == (1, reason)
    assert trial.budgets() == [(0, 1)]


def test_an_evicted_pod_is_replaced_by_its_job_and_goes_on(stage: Scene) -> None:
    trial = stage.trial("goes-on")
    # The Job controller counts its own ten seconds from the pod's end: not from one that is in the machine's future.
    trial.puppet = Puppet(stage.api)
    pod = trial.start()
    _evicted(stage.api, trial.puppet, trial, pod)
    again = trial.run(other=pod["metadata"]["name"])
    trial.succeed(again, resumedFromStep=40, stepsLost=2)
    assert trial.attempts() == [(1, "Evicted"), (1, "Succeeded")]
    assert trial.budgets() == [(0, 1)]
    assert [(each.get("resumedFromStep"), each.get("stepsLost")) for each in trial.status["attempts"]] == [(None, None), (40, 2)]
    assert len(trial.batch_jobs()) == 1


def test_attempts_are_repeated_after_a_back_off_until_they_are_spent(stage: Scene) -> None:
    trial = stage.trial("repeated", spec__retry={"maxAttempts": 2})
    stage.puppet.finish(trial.start(), 40, said("Failed", 40, reason=Reason.STALLED, message="it hangs"))
    assert "task: attempt 1 of 2 failed (Stalled: it hangs); the next begins at 20" in trial.await_waiting("BackOff")
    assert len(trial.batch_jobs()) == 1
    stage.operator.advance(11)
    stage.puppet.finish(trial.run(2), 3)
    failure = trial.await_failed(ClusterReason.UNKNOWN_EXIT)
    assert "(attempt 2 of 2)" in failure["message"]
    assert trial.attempts() == [(1, "Stalled"), (2, "UnknownExit")]


def test_more_attempts_and_a_longer_deadline_are_accepted_while_it_runs(stage: Scene) -> None:
    trial = stage.trial("raised", spec__retry={"maxAttempts": 1}, spec__activeDeadlineSeconds=600)
    pod = trial.start()
    trial.edit(retry={"maxAttempts": 2}, activeDeadlineSeconds=1200)
    stage.puppet.finish(pod, 1)
    trial.await_waiting("BackOff")
    stage.operator.advance(11)
    trial.succeed(trial.run(2))
    assert trial.status["observedGeneration"] == trial.seen["metadata"]["generation"] == 2


def test_a_job_that_runs_for_too_long_is_stopped(stage: Scene) -> None:
    trial = stage.trial("too-long", spec__activeDeadlineSeconds=60)
    pod = trial.start()
    stage.operator.advance(61)
    trial.stop(trial.await_stopping(pod), 75, stopped(40))
    failure = trial.await_failed(ClusterReason.DEADLINE_EXCEEDED)
    assert "its pods have run for 60 s in all" in failure["message"]
    assert trial.attempts() == [(1, "DeadlineExceeded")]
    assert trial.budgets() == []


def test_a_finished_job_is_deleted_when_its_time_to_live_is_over(stage: Scene) -> None:
    trial = stage.trial("short-lived", spec__ttlSecondsAfterFinished=100)
    trial.succeed(trial.start())
    stage.operator.advance(90)
    assert trial.seen["metadata"].get("deletionTimestamp") is None
    stage.operator.advance(11)
    trial.await_gone()
    assert stage.api.find(FINE_TUNE_JOB.path(stage.namespace, "short-lived")) is None


def test_a_result_that_was_too_long_for_a_message_is_read_by_a_report(stage: Scene) -> None:
    trial = stage.trial("long-result")
    stage.puppet.finish(trial.start(), message=published(truncated=True))
    report = trial.run(segment="report")
    evaluation = [{"suite": "in-domain", "metric": "loss", "baseline": 5.5, "stages": [{"stage": "task", "value": 3.25}]}]
    stage.puppet.finish(report, messages=pages(published(evaluation=evaluation, provenance={"seed": 42})))
    status = trial.await_phase("Succeeded")
    assert status["evaluation"] == evaluation
    assert status["provenance"]["seed"] == 42


def test_a_success_without_a_word_is_told_by_a_report_too(stage: Scene) -> None:
    trial = stage.trial("speechless")
    stage.puppet.finish(trial.start())
    stage.puppet.finish(trial.run(segment="report"), messages=pages(published()))
    assert trial.await_phase("Succeeded")["artifacts"][0]["kind"] == "adapter"


def test_a_report_that_fails_three_times_does_not_take_the_success_away(stage: Scene) -> None:
    trial = stage.trial("report-fails")
    stage.puppet.finish(trial.start(), message=published(truncated=True))
    for number in (1, 2, 3):
        stage.puppet.finish(trial.await_pod(number, segment="report"), 1)
    status = trial.await_phase("Succeeded")
    assert status["artifacts"][0]["kind"] == "adapter"
    assert "evaluation" not in status
