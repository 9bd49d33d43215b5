"""The conditions in every state, as kstatus reads them."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.constants import ConditionReason, ConditionType
from finetune_api.v1alpha1.status import Failure, Phase
from finetune_operator.case import Step
from finetune_operator.conditions import conditions
from tests.unit.operator.worlds import START

STEP = Step(Phase.PENDING, ConditionReason.STARTING, "it starts")
FAILURE = Failure.model_validate({"reason": "LossDiverged", "message": "m", "hint": "h"})
STATES = {
    "starting": STEP,
    "running": dataclasses.replace(STEP, phase=Phase.RUNNING, reason=ConditionReason.TRAINING, running=True),
    "suspending": dataclasses.replace(STEP, phase=Phase.SUSPENDING, reason=ConditionReason.SUSPENDING),
    "suspended": dataclasses.replace(STEP, phase=Phase.SUSPENDED, reason=ConditionReason.CHECKPOINT_VERIFIED, suspended=True),
    "refused": dataclasses.replace(STEP, reason=ConditionReason.INVALID_SPEC, accepted=False),
    "succeeded": dataclasses.replace(STEP, phase=Phase.SUCCEEDED, reason=ConditionReason.SUCCEEDED, succeeded=True),
    "failed": dataclasses.replace(STEP, phase=Phase.FAILED, failure=FAILURE),
}
TRUE = {
    "starting": {"Accepted", "Reconciling"},
    "running": {"Accepted", "Running", "Reconciling"},
    "suspending": {"Accepted", "Reconciling"},
    "suspended": {"Accepted", "Suspended"},
    "refused": {"Stalled"},
    "succeeded": {"Accepted", "Complete", "Finished"},
    "failed": {"Accepted", "Failed", "Finished", "Stalled"},
}


def made(step: Step, old: dict[str, Any] | None = None, seconds: float = 0) -> list[dict[str, Any]]:
    return conditions(step, old or {}, now=START + timedelta(seconds=seconds), generation=1)


@pytest.mark.parametrize("state", STATES)
def test_what_is_true(state: str) -> None:
    found = made(STATES[state])
    assert [each["type"] for each in found] == [kind.value for kind in ConditionType]
    assert {each["type"] for each in found if each["status"] == "True"} == TRUE[state]


@pytest.mark.parametrize("state", STATES)
def test_kstatus(state: str) -> None:
    """Failed reads as Failed, what goes on as InProgress, the rest as Current; never two at once."""
    holds = {each["type"] for each in made(STATES[state]) if each["status"] == "True"}
    stalled, reconciling, over = "Stalled" in holds, "Reconciling" in holds, bool(holds & {"Finished", "Suspended"})
    assert stalled == ("Failed" in holds or "Accepted" not in holds)
    assert reconciling == (not over and not stalled)


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_times_change_with_the_status_alone_and_never_go_back(before: str, after: str) -> None:
    old = made(STATES[before], seconds=100)
    for seconds in (200, -5000):
        new = made(STATES[after], {"conditions": old}, seconds=seconds)
        for one, other in zip(old, new, strict=True):
            if one["status"] == other["status"]:
                assert other["lastTransitionTime"] == one["lastTransitionTime"]
            else:
                assert other["lastTransitionTime"] >= one["lastTransitionTime"]


def test_a_failure_names_its_reason_everywhere() -> None:
    reasons = {each["type"]: each["reason"] for each in made(STATES["failed"])}
    assert reasons["Failed"] == reasons["Finished"] == reasons["Stalled"] == "LossDiverged"
