"""What should happen to one FineTuneJob now: the policies in their order, of which the first that has something to say decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from finetune_operator.case import Case, Step
from finetune_operator.model import Decision, Observed
from finetune_operator.policies.accepted import parse, runnable
from finetune_operator.policies.conclude import conclude
from finetune_operator.policies.deadline import deadline
from finetune_operator.policies.drift import drifted
from finetune_operator.policies.finished import after_finish, is_finished
from finetune_operator.policies.node import lost_node
from finetune_operator.policies.output import free_output
from finetune_operator.policies.refused import refused
from finetune_operator.policies.retry import backing_off, failed
from finetune_operator.policies.runtime import resolve
from finetune_operator.policies.start import start
from finetune_operator.policies.strays import strays
from finetune_operator.policies.suspend import suspended
from finetune_operator.policies.watch import watched
from finetune_operator.status import answer

POLICIES: Final[tuple[Callable[[Case], Step | None], ...]] = (
    refused,  # what was refused a moment ago is not tried again at once
    runnable,  # before the first Job: does the runtime give what the job names?
    free_output,
    strays,  # one run folder, one trainer
    lost_node,
    conclude,  # a job that is done is done, suspended or late as it may be
    failed,
    deadline,
    suspended,
    drifted,
    backing_off,
    watched,
    start,
)


def decide(seen: Observed) -> Decision:
    """Return what to do. Pure: the same world gives the same answer, and an unchanged one gives an equal status."""
    if seen.job["metadata"].get("deletionTimestamp"):
        return Decision()
    if is_finished(seen):
        return after_finish(seen)
    job = parse(seen)
    if isinstance(job, Step):
        return answer(seen, job)
    snapshot = resolve(seen, job)
    if isinstance(snapshot, Step):
        return answer(seen, snapshot)
    case = Case.of(seen, job, snapshot)
    steps = (policy(case) for policy in POLICIES)
    return answer(seen, next(step for step in steps if step is not None), case)
