"""A FineTuneJob in every state, written by the operator's own decisions, each with where it stands in the table of docs/how-to/gitops.md."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Final

from finetune_api.constants import ClusterReason, ConditionReason, ExitCode, Reason
from finetune_api.v1alpha1.status import Failure, Phase
from finetune_operator.case import Step
from finetune_operator.model import Observed
from finetune_operator.status import answer
from tests.unit.operator.worlds import START, Document, World, at, job, published, result, runtime

NEW: Final = "no operator has looked at it"
EDITED: Final = "the operator has not looked at its latest change"
REFUSED: Final = "not accepted"
GOES_ON: Final = "it waits, prepares, trains, or is being stopped"
SUSPENDED: Final = "suspended"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
DELETED: Final = "being deleted"


@dataclasses.dataclass(frozen=True)
class State:
    name: str
    row: str
    """Of the table."""
    manifest: Document


def states() -> Iterator[State]:
    """Yield all of them."""
    yield State("as the API server creates it", NEW, job(status={"observedGeneration": -1}))
    for name, (row, play) in _PLAYED.items():
        yield State(name, row, copy.deepcopy(play().job))
    for reason in ConditionReason:
        yield State(f"Running is False: {reason}", GOES_ON, _told(Step(Phase.PENDING, reason, "so it is")))
        yield State(f"Running is True: {reason}", GOES_ON, _told(Step(Phase.RUNNING, reason, "so it is", running=True)))
        yield State(f"Accepted is False: {reason}", REFUSED, _told(Step(Phase.PENDING, reason, "so it is", accepted=False)))
    for failure in (*Reason, *ClusterReason):
        said = Failure.model_validate({"reason": failure.value, "message": "so it ended", "hint": "Do this."})
        yield State(f"Failed: {failure}", FAILED, _told(Step(Phase.FAILED, ConditionReason.STOPPING, "so it ended", failure=said)))


def _told(step: Step) -> Document:
    """The job once the operator has told of a step."""
    manifest = job()
    decision = answer(Observed(job=manifest, jobs=(), pods=(), now=START), step)
    assert decision.status is not None
    return {**manifest, "status": dict(decision.status)}


def _started(**edits: Any) -> World:
    world = World(job(**edits))
    world.settle(1)
    return world


def _running(**edits: Any) -> World:
    world = _started(**edits)
    world.run()
    world.settle(1)
    return world


def _starting() -> World:
    world = _started()
    world.pod()
    world.settle(6)
    return world


def _preparing() -> World:
    world = World(job(), runtime(prepare="ownPod"))
    world.settle(1)
    world.run()
    world.settle(1)
    return world


def _queued() -> World:
    world = World(job(), runtime(queueName="team-a"))
    world.settle(1)
    world.settle(6)
    return world


def _reporting_progress() -> World:
    world = _running()
    world.job["status"]["progress"] = {"percent": 41, "step": 410, "loss": 0.81, "eta": "1h0m", "updatedAt": at(60)}
    return world


def _suspend(world: World, value: bool = True) -> World:
    world.job["spec"]["suspend"] = value
    world.job["metadata"]["generation"] += 1
    return world


def _suspending() -> World:
    world = _suspend(_running())
    world.settle(1)
    return world


def _suspended(*, heard: bool = True) -> World:
    world = _suspending()
    (pod,) = world.pods
    if heard:
        world.end(pod, ExitCode.STOPPED, result("Stopped", 75, reason="Stopped", step=9), job_ends=False)
        world.settle(1)
    world.gone(*world.jobs, *world.pods)
    world.settle(1)
    return world


def _resumed() -> World:
    world = _suspend(_suspended(), False)
    world.settle(100)
    world.run()
    world.settle(1)
    return world


def _ended(code: int, message: str, *, times: int = 1, **edits: Any) -> World:
    world = _running(**edits)
    for number in range(times):
        world.end(list(world.pods)[-1], code, message)
        world.settle(1)
        if number < times - 1:
            world.settle(400)
            world.run()
            world.settle(1)
    return world


def _no_progress() -> World:
    return _ended(ExitCode.STALLED, result("Failed", 40, reason="Stalled", stage="task", message="no step ended for 30 minutes"))


def _bad_data() -> World:
    return _ended(ExitCode.BAD_DATA, result("Failed", 11, reason="DataInvalid", stage="task", message="line 3: no column prompt"))


def _succeeded() -> World:
    return _ended(0, published())


def _edited_after_the_end(*, looked_at: bool) -> World:
    world = _succeeded()
    world.job["spec"]["ttlSecondsAfterFinished"] = 3600
    world.job["metadata"]["generation"] += 1
    if looked_at:
        world.settle(1)
    return world


def _deleted(world: World) -> World:
    world.job["metadata"]["deletionTimestamp"] = at(1000)
    return world


def _refused() -> World:
    world = World(job(spec__runtimeRef={"name": "gone"}))
    world.settle(1)
    return world


_PLAYED: Final[dict[str, tuple[str, Callable[[], World]]]] = {
    "starting": (GOES_ON, _starting),
    "queued": (GOES_ON, _queued),
    "preparing": (GOES_ON, _preparing),
    "running": (GOES_ON, _running),
    "running, with progress": (GOES_ON, _reporting_progress),
    "suspend was just asked for": (EDITED, lambda: _suspend(_running())),
    "suspending": (GOES_ON, _suspending),
    "suspended": (SUSPENDED, _suspended),
    "suspended, without its last words": (SUSPENDED, lambda: _suspended(heard=False)),
    "made suspended": (SUSPENDED, lambda: _started(spec__suspend=True)),
    "resumed": (GOES_ON, _resumed),
    "backs off after no progress": (GOES_ON, _no_progress),
    "its runtime is not there": (REFUSED, _refused),
    "failed for its data": (FAILED, _bad_data),
    "failed after three attempts": (FAILED, lambda: _ended(1, result("Failed", 1, reason="InternalError", message="m"), times=3)),
    "succeeded": (SUCCEEDED, _succeeded),
    "edited after the end": (EDITED, lambda: _edited_after_the_end(looked_at=False)),
    "edited after the end, and looked at": (SUCCEEDED, lambda: _edited_after_the_end(looked_at=True)),
    "deleted while it runs": (DELETED, lambda: _deleted(_running())),
    "deleted after the end": (DELETED, lambda: _deleted(_succeeded())),
}
