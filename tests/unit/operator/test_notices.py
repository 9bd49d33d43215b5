"""What a trainer notices of itself: a silence is a condition's reason, the rest are warnings; each is one Event, and goes when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from finetune_api.constants import NoticeReason
from finetune_api.wire import Activity, Notice, ProgressUpdate
from finetune_operator.decide import decide
from finetune_operator.model import Live, Note, Severity
from tests.unit.operator.test_progress import live, running, train
from tests.unit.operator.worlds import World, published, result

SILENT = Notice(reason=NoticeReason.NO_PROGRESS, message="train task, after step 40: nothing has advanced since 12:00:00 UTC.")
FLAT = Notice(reason=NoticeReason.LOSS_FLAT, message="stage task: the loss has not fallen.")
GAP = Notice(reason=NoticeReason.GAP_OPENING, message="stage task: the validation loss has risen.")
RISING = Notice(reason=NoticeReason.LOSS_RISING, message="stage task: the loss has risen.")


def said(world: World, *notices: Notice, pod: str | None = None, update: ProgressUpdate | None = None) -> Live:
    return replace(live(world, update or train(40, 4.0)), notices=notices, pod=pod or list(world.pods)[-1])


def hear(world: World, told: Live | None, seconds: float = 15.0) -> Sequence[Note]:
    """Reconcile with what a pod said; returns the Events. The same again must tell nothing."""
    world.seconds += seconds
    decision = decide(replace(world.observed(pod_nodes={}), live=told))
    assert not decision.needs and not decision.actions
    if decision.status is None or decision.status == world.status:
        return ()
    world.job["status"] = dict(decision.status)
    again = decide(replace(world.observed(pod_nodes={}), live=told))
    assert (again.status, again.notes) == (decision.status, ()), "the same world gives something else"
    return decision.notes


def test_a_silence_is_told_while_it_lasts_and_is_no_failure() -> None:
    world = running()
    (pod,) = world.pods
    (note,) = hear(world, said(world, SILENT))
    assert (note.severity, note.reason) == (Severity.WARNING, "NoProgress")
    assert note.message == f"pod {pod} on node node-1: {SILENT.message}"
    assert world.condition("Running") == ("True", "NoProgress") and world.condition("Reconciling") == ("True", "NoProgress")
    assert world.condition("Stalled") == ("False", "NotStalled"), "kstatus takes a stalled job for a failed one"
    assert (world.status["phase"], world.status.get("warnings")) == ("Running", None)
    assert hear(world, said(world, SILENT)) == ()
    assert hear(world, None) == (), "an operator that was restarted, and has heard nothing yet"
    assert world.condition("Running") == ("True", "NoProgress")
    assert [(note.severity, note.reason) for note in hear(world, said(world))] == [(Severity.NORMAL, "Training")]


def test_a_silence_while_data_is_prepared() -> None:
    world = World()
    world.settle(1)
    world.run(container="prepare")
    world.settle(1)
    hear(world, said(world, SILENT, update=ProgressUpdate(activity=Activity.PREPARE)))
    assert (world.status["phase"], world.condition("Running")) == ("Preparing", ("True", "NoProgress"))


def test_the_silence_of_a_pod_that_was_replaced_says_nothing_of_the_next() -> None:
    world = running()
    hear(world, said(world, SILENT))
    (old,) = world.pods
    world.gone(old)
    world.run()
    assert [note.reason for note in hear(world, said(world, SILENT, pod=old))] == ["Training"]
    world = running()
    hear(world, said(world, SILENT))
    world.gone(*list(world.pods))
    world.run()
    assert [note.reason for note in hear(world, None)] == ["Training"], "nor what an operator that was restarted reads of it"


def test_a_pod_that_hung_is_an_attempt_that_failed_and_the_next_follows() -> None:
    world = running()
    hear(world, said(world, SILENT))
    world.end(next(iter(world.pods)), 40, result("Failed", 40, reason="Stalled", message="nothing has advanced for 30 min"))
    world.settle(1)
    assert world.condition("Running") == ("False", "BackOff")
    assert [each["reason"] for each in world.status["attempts"]] == ["Stalled"]
    world.settle(20)
    assert len(world.jobs) == 2


def test_a_warning_has_one_event_keeps_its_first_words_and_goes_when_it_is_over() -> None:
    world = running()
    notes = hear(world, said(world, FLAT, RISING))
    assert [(note.severity, note.reason, note.message) for note in notes] == [
        (Severity.WARNING, "LossFlat", FLAT.message),
        (Severity.WARNING, "LossRising", RISING.message),
    ]
    since = world.status["warnings"][0]["since"]
    assert world.status["warnings"][0] == {"reason": "LossFlat", "message": FLAT.message, "since": since}
    later = FLAT.model_copy(update={"message": "stage task: with other figures."})
    assert hear(world, said(world, later, RISING)) == ()
    assert [each["message"] for each in world.status["warnings"]] == [FLAT.message, RISING.message]
    assert hear(world, None) == () and len(world.status["warnings"]) == 2, "an operator that was restarted keeps what stands"
    assert hear(world, said(world, RISING)) == ()
    assert [each["reason"] for each in world.status["warnings"]] == ["LossRising"]
    assert [note.reason for note in hear(world, said(world, FLAT, RISING))] == ["LossFlat"], "it came back"
    assert world.condition("Running") == ("True", "Training")


def test_a_gap_that_opens_is_an_event() -> None:
    world = running()
    (note,) = hear(world, said(world, GAP))
    assert (note.severity, note.reason, note.message) == (Severity.WARNING, "GapOpening", GAP.message)
    assert [each["reason"] for each in world.status["warnings"]] == ["GapOpening"]


def test_nothing_is_warned_of_when_nothing_runs() -> None:
    world = running()
    hear(world, said(world, FLAT))
    world.end(next(iter(world.pods)), 0, published())
    hear(world, said(world, FLAT))
    assert (world.status["phase"], world.status.get("warnings")) == ("Succeeded", None)
