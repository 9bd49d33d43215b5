"""People with kubectl: children deleted, edited, relabelled, orphaned; a status that somebody else wrote; suspension and deletion at any time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from finetune_api import constants as c
from finetune_operator.kinds import CLAIM, JOB, controller_of, job_uid_label, uid_of
from finetune_operator.names import claim_name
from tests.apiserver.trouble import Scene
from tests.apiserver.trouble_job import Trial, stopped
from tests.cluster.api import ApiError, Object
from tests.cluster.pods import await_value, pod_path

CLAIMING: Final = {"claimTemplate": {"className": "shared", "accessMode": "ReadWriteMany", "size": "1Gi"}}


def job_path(child: Object) -> str:
    return JOB.path(child["metadata"]["namespace"], child["metadata"]["name"])


# Its Job


@pytest.mark.parametrize("runs", [False, True], ids=["before-it-runs", "while-it-runs"])
def test_a_job_deleted_by_hand_is_a_disruption(stage: Scene, runs: bool) -> None:
    trial = stage.trial(f"job-deleted-{runs}".lower())
    trial.submit()
    pod = trial.run() if runs else trial.await_pod()
    if not runs:  # on record, or nobody would miss it
        stage.operator.advance(6)
        trial.await_waiting("Starting")
    (child,) = trial.batch_jobs()
    stage.api.delete(job_path(child))
    if runs:
        trial.stop(trial.await_stopping(pod), 75, stopped(40))
    else:
        trial.await_stopping(pod)
        stage.puppet.remove(pod)
    trial.await_waiting("BackOff")
    stage.operator.advance(11)
    trial.succeed(trial.run(2))
    assert [number for number, _ in trial.attempts()] == [1, 2]
    assert trial.budgets() == [(0, 1)]


def test_a_job_deleted_after_the_end_changes_nothing(stage: Scene) -> None:
    trial = stage.trial("deleted-after")
    before = dict(trial.succeed(trial.start()))
    (child,) = trial.batch_jobs()
    stage.api.delete(job_path(child))
    trial.await_gone(job_path(child))
    stage.operator.advance(61)
    stage.operator.kill()
    stage.operator.start()
    assert trial.status == before


def test_pods_that_lose_their_job_are_waited_for(stage: Scene) -> None:
    trial = stage.trial("pods-orphaned")
    pod = trial.start()
    (child,) = trial.batch_jobs()
    stage.api.delete(job_path(child), propagation="Orphan")
    trial.stop(trial.await_stopping(pod), 75, stopped(40))
    stage.operator.advance(11)
    trial.succeed(trial.run(2))
    assert trial.budgets() == [(0, 1)]


def test_an_orphaned_job_is_removed_before_the_next_one(stage: Scene) -> None:
    trial = stage.trial("job-orphaned")
    pod = trial.start()
    (child,) = trial.batch_jobs()
    stage.api.patch(job_path(child), {"metadata": {"ownerReferences": None}})
    trial.stop(trial.await_stopping(pod), 75, stopped(40))
    trial.await_gone(job_path(child))
    stage.operator.advance(11)
    trial.succeed(trial.run(2))
    stage.recorder.await_all()
    assert stage.recorder.at_once(uid_of(trial.seen)) == 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("suspended-itself", {"spec": {"suspend": True}}),
        ("no-parallelism", {"spec": {"parallelism": 0}}),
        ("relabelled", {"metadata": {"labels": {c.JOB_UID_LABEL: "somebody-else"}}}),
        ("unlabelled", {"metadata": {"labels": {c.MANAGED_LABEL: None, c.JOB_UID_LABEL: None}}}),
    ],
)
def test_a_job_edited_by_hand_is_replaced(stage: Scene, name: str, change: dict[str, Any]) -> None:
    trial = stage.trial(name)
    pod = trial.start()
    (child,) = trial.batch_jobs()
    stage.api.patch(job_path(child), change)
    assert "was changed by hand" in trial.await_waiting("CleaningUp")
    trial.stop(trial.await_stopping(pod), 75, stopped(40))
    trial.await_gone(job_path(child))
    stage.operator.advance(11)
    trial.succeed(trial.run(2))
    assert trial.attempts() == [(1, "JobEdited"), (2, "Succeeded")]
    assert trial.budgets() == [(0, 1)]


# Its claim


def test_a_claim_deleted_by_hand_is_made_anew_for_the_next_attempt(stage: Scene, claiming: str) -> None:
    trial = stage.trial("claim-deleted", runtime=claiming, spec__retry={"maxAttempts": 2})
    pod = trial.start()
    path = CLAIM.path(stage.namespace, claim_name(trial.seen))
    first = uid_of(stage.api.get(path))
    stage.api.delete(path)
    assert stage.api.get(path)["metadata"]["deletionTimestamp"], "held by its pod"
    stage.puppet.finish(pod, 40)
    trial.await_that(lambda: trial.attempts() == [(1, "Stalled")], "the end is on record")
    trial.await_gone(path)
    stage.operator.advance(11)
    trial.succeed(trial.run(2))
    assert uid_of(stage.api.get(path)) != first


# Its pod


def test_labels_of_a_pod_are_believed_by_nobody(stage: Scene) -> None:
    trial, other = stage.trial("pod-relabelled"), stage.trial("another")
    pod = trial.start()
    other.submit()
    stage.api.patch(
        pod_path(pod), {"metadata": {"labels": {c.JOB_UID_LABEL: uid_of(other.seen), c.SEGMENT_LABEL: "9", c.ATTEMPT_LABEL: "7"}}}
    )
    trial.succeed(pod)
    assert trial.attempts() == [(1, "Succeeded")]
    other.succeed(other.run())
    assert other.attempts() == [(1, "Succeeded")]


# Its status


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("status-emptied", None),
        ("status-finished", {"phase": "Succeeded", "conditions": "finished"}),
        ("status-made-up", {"phase": "Queued", "currentStage": "none", "attempts": [{"segment": "x", "number": 9, "job": "not-ours"}]}),
    ],
)
def test_a_status_that_somebody_else_wrote_is_written_anew(stage: Scene, name: str, written: dict[str, Any] | None) -> None:
    trial = stage.trial(name)
    pod = trial.start()
    if written is not None and written.get("conditions"):
        true = {"status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": "2030-01-01T00:00:00Z"}
        written = {**written, "conditions": [{"type": "Finished", **true}, {"type": "Complete", **true}]}
    stage.api.patch(f"{trial.path}/status", {"status": written})

    def repaired() -> bool:
        status = trial.status
        named = [(each["number"], each.get("pod")) for each in status.get("attempts") or []]
        return status.get("phase") == "Running" and named == [(1, pod["metadata"]["name"])] and status.get("currentStage") == "task"

    trial.await_that(repaired, "the status says again what is")
    trial.succeed(pod)
    assert len(trial.batch_jobs()) == 1


# Its spec


def test_an_edit_of_what_decides_the_result_is_refused_with_its_path(stage: Scene) -> None:
    trial = stage.trial("edited", spec__activeDeadlineSeconds=600)
    pod = trial.start()
    for change, path in (
        ({"seed": 7}, "spec.seed"),
        ({"model": {"uri": "hf://other/model"}}, "spec.model"),
        ({"retry": {"maxAttempts": 1}}, "spec.retry"),
        ({"activeDeadlineSeconds": 60}, "spec.activeDeadlineSeconds"),
    ):
        with pytest.raises(ApiError) as refused:
            trial.edit(**change)
        assert {cause["field"] for cause in refused.value.status["details"]["causes"]} == {path}
    trial.succeed(pod)


# Suspension


def test_a_job_that_is_suspended_saves_first_and_goes_on_uncharged(stage: Scene) -> None:
    trial = stage.trial("suspended")
    pod = trial.start()
    trial.edit(suspend=True)
    pod = trial.await_stopping(pod)
    trial.await_condition("Suspended", "False", "Suspending")
    stage.operator.advance(61)
    assert trial.condition("Suspended")["status"] == "False", "its container has not ended"
    ended = stage.puppet.finish(pod, 75, stopped(40))
    trial.await_that(lambda: "finishedAt" in trial.status["attempts"][0], "its end is on record")
    stage.puppet.remove(ended)
    trial.await_condition("Suspended", "True", "CheckpointVerified")
    trial.edit(suspend=False)
    trial.succeed(trial.run(2))
    assert trial.attempts() == [(1, "Suspended"), (2, "Succeeded")]
    assert trial.budgets() == []


def test_a_suspended_pod_that_goes_without_a_word_leaves_its_checkpoint_unconfirmed(stage: Scene) -> None:
    trial = stage.trial("suspended-unheard")
    pod = trial.start()
    trial.edit(suspend=True)
    stage.puppet.remove(trial.await_stopping(pod))
    message = trial.await_condition("Suspended", "True", "CheckpointUnconfirmed")["message"]
    assert "goes on from the newest checkpoint that is whole" in message


def test_a_job_that_is_made_suspended_makes_nothing_until_it_is_resumed(stage: Scene) -> None:
    trial = stage.trial("suspended-first", spec__suspend=True)
    trial.submit()
    trial.await_condition("Suspended", "True", "NotStarted")
    assert trial.batch_jobs() == []
    kinds = {each["type"]: each["status"] for each in trial.status["conditions"]}
    assert (kinds["Stalled"], kinds["Reconciling"]) == ("False", "False"), "kstatus reads it as current"
    trial.edit(suspend=False)
    trial.succeed(trial.run())


# Deletion


def _waits(stage: Scene, trial: Trial) -> Object | None:
    trial.submit()
    return trial.await_pod()


def _runs(stage: Scene, trial: Trial) -> Object | None:
    return trial.start()


def _is_suspended(stage: Scene, trial: Trial) -> Object | None:
    pod = trial.start()
    trial.edit(suspend=True)
    trial.stop(trial.await_stopping(pod))
    trial.await_phase("Suspended")
    return None


def _has_failed(stage: Scene, trial: Trial) -> Object | None:
    stage.puppet.finish(trial.start(), 11)
    trial.await_phase("Failed")
    return None


def _has_succeeded(stage: Scene, trial: Trial) -> Object | None:
    trial.succeed(trial.start())
    return None


PHASES: Final = {"waits": _waits, "runs": _runs, "suspended": _is_suspended, "failed": _has_failed, "succeeded": _has_succeeded}


@pytest.mark.parametrize("retain", ["Always", "Never"])
@pytest.mark.parametrize(("phase", "come"), PHASES.items())
def test_deletion_takes_everything_but_what_is_retained(
    stage: Scene, claiming: str, phase: str, come: Callable[[Scene, Trial], Object | None], retain: str
) -> None:
    trial = stage.trial(f"{phase}-{retain}".lower(), runtime=claiming, spec__output={"retain": retain})
    pod = come(stage, trial)
    uid = uid_of(trial.seen)
    trial.delete()
    trial.await_gone()
    if pod is not None:
        stage.puppet.stop(trial.await_stopping(pod))

    def left(path: str) -> list[str]:
        found = stage.api.items(path)
        return [each["metadata"]["name"] for each in found if uid in (controller_of(each), job_uid_label(each))]

    kept = 1 if retain == "Always" else 0
    await_value(lambda: not left(JOB.path(stage.namespace)) and not trial.pods(uid), what="no Job and no pod is left", timeout=120)
    await_value(lambda: len(left(CLAIM.path(stage.namespace))) == kept, what=f"{kept} claims are left", timeout=120)
    for name in left(CLAIM.path(stage.namespace)):
        stage.api.delete(CLAIM.path(stage.namespace, name))


@pytest.fixture(scope="module")
def claiming(stage: Scene) -> str:
    """The suffix of a runtime that makes a claim for each job."""
    stage.runtime("claiming", storage=CLAIMING)
    return "claiming"


def test_a_job_can_be_deleted_while_the_operator_is_down(stage: Scene) -> None:
    trial = stage.trial("operator-down")
    pod = trial.start()
    stage.operator.kill()
    uid = uid_of(trial.seen)
    try:
        trial.delete()
        trial.await_gone()
        stage.puppet.stop(trial.await_stopping(pod))
        await_value(lambda: not trial.pods(uid), what="no pod is left", timeout=120)
    finally:
        stage.operator.start()


def test_a_job_made_again_under_its_name_is_another(stage: Scene) -> None:
    trial = stage.trial("made-again")
    pod = trial.start()
    first = uid_of(trial.seen)
    trial.delete()
    trial.submit()
    assert uid_of(trial.seen) != first
    second = trial.run()
    stage.puppet.stop(trial.await_stopping(pod))
    trial.succeed(second)
    assert trial.attempts() == [(1, "Succeeded")]
    assert trial.budgets() == []
