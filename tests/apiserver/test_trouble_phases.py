"""A Job that somebody deletes in the phases in which no trainer works: each makes it again, and charges only what had begun.

The phases in which one does are in `test_trouble_by_hand.py`; `tests/unit/operator/test_by_hand.py` has them all.
"""

from __future__ import annotations

from finetune_operator.kinds import JOB, uid_of
from tests.apiserver.test_trouble_by_hand import job_path
from tests.apiserver.trouble import Scene
from tests.apiserver.trouble_job import Trial, pages, published, said


def delete_job(trial: Trial) -> str:
    """Delete the newest Job. Returns its uid."""
    child = max(trial.batch_jobs(), key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"]))
    trial.api.delete(job_path(child))
    return uid_of(child)


def test_in_the_back_off_it_is_counted_once(stage: Scene) -> None:
    trial = stage.trial("deleted-in-back-off")
    stage.puppet.finish(trial.start(), 1, said("Failed", 1, reason="InternalError", message="broken"))
    trial.await_waiting("BackOff")
    (child,) = trial.batch_jobs()
    delete_job(trial)
    trial.await_gone(job_path(child))
    stage.operator.advance(11)
    trial.succeed(trial.run(2))
    assert trial.attempts() == [(1, "InternalError"), (2, "Succeeded")]
    assert trial.budgets() == [(1, 0)]


def test_while_it_prepares_only_that_is_done_again(stage: Scene) -> None:
    stage.runtime("prepares", prepare="ownPod")
    trial = stage.trial("deleted-preparing", runtime="prepares")
    trial.submit()
    pod = trial.run(segment=0)
    delete_job(trial)
    trial.stop(trial.await_stopping(pod), 75)
    stage.operator.advance(11)
    stage.puppet.finish(trial.run(2, segment=0), message=said())
    trial.succeed(trial.run())
    assert [number for number, _ in trial.attempts()] == [1, 2, 1]
    assert trial.budgets() == [(0, 1)]


def test_in_a_queue_it_takes_its_place_again_uncharged(stage: Scene) -> None:
    stage.runtime("queued", queueName="team")
    trial = stage.trial("deleted-queued", runtime="queued")
    trial.submit()
    trial.await_waiting("Queued")
    first = delete_job(trial)
    (child,) = trial.await_that(
        lambda: [each for each in trial.batch_jobs() if uid_of(each) != first and each["spec"]["suspend"]], "the next Job queues"
    )
    stage.api.patch(JOB.path(stage.namespace, child["metadata"]["name"]), {"spec": {"suspend": False}})  # as Kueue admits it
    number = int(child["metadata"]["name"].rpartition("-")[2])
    trial.succeed(trial.run(number))
    assert trial.attempts() == [(number, "Succeeded")]
    assert trial.budgets() == []


def test_while_it_reports_the_result_is_read_again(stage: Scene) -> None:
    trial = stage.trial("deleted-reporting")
    stage.puppet.finish(trial.start(), message=published(truncated=True))
    pod = trial.run(segment="report")
    delete_job(trial)
    trial.stop(trial.await_stopping(pod), 75)
    stage.operator.advance(11)
    stage.puppet.finish(trial.run(2, segment="report"), messages=pages(published()))
    assert trial.await_phase("Succeeded")["artifacts"][0]["kind"] == "adapter"
    assert [reason for _, reason in trial.attempts()][::2] == ["Succeeded", "Succeeded"]
