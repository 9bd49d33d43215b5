"""What counts as badly told."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from finetune_api.constants import ClusterReason, ExitCode, Reason
from tests.failures.base import KILLED, Layer, Told, shortfalls
from tests.failures.catalogue import POD_FAILURES
from tests.failures.choice import MOST, chosen
from tests.failures.manifest_failures import ManifestFailure

FAILURE = ManifestFailure(
    name="a", layer=Layer.DATA, what="", reason=Reason.DATA_INVALID, place="a.jsonl:2", hint="Correct", fix="", edits={}, mends={}
)
WELL = Told(Reason.DATA_INVALID, "a.jsonl:2: is no row", "Correct it", code=ExitCode.BAD_DATA)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        ({"code": None}, []),
        ({"code": ExitCode.INTERNAL}, ["the exit code is 1, not 11"]),
        ({"reason": Reason.DATA_EMPTY}, ["the reason is DataEmpty, not DataInvalid"]),
        ({"message": "is no row"}, ["'a.jsonl:2' is not named"]),
        ({"hint": ""}, ["there is no hint", "the hint does not say 'Correct'"]),
        ({"noise": "Traceback (most recent call last)"}, ["a traceback is shown"]),
    ],
)
def test_shortfalls(change: dict[str, Any], found: list[str]) -> None:
    assert [each.partition(";")[0] for each in shortfalls(FAILURE, dataclasses.replace(WELL, **change))] == found


def test_a_killed_trainer_has_its_code_too() -> None:
    failure = dataclasses.replace(FAILURE, reason=ClusterReason.UNKNOWN_EXIT)
    told = dataclasses.replace(WELL, reason=ClusterReason.UNKNOWN_EXIT, code=KILLED)
    assert shortfalls(failure, told) == []
    assert shortfalls(failure, dataclasses.replace(told, code=ExitCode.INTERNAL)) != []


def test_a_seed_takes_the_same_failures_again_and_another_seed_takes_others() -> None:
    costs = {failure.name: failure.cost for failure in POD_FAILURES}
    assert chosen(costs, "7") == chosen(dict(reversed(costs.items())), "7")
    draws = [chosen(costs, str(seed)) for seed in range(100)]
    assert {sum(costs[name] for name in draw) for draw in draws} == {MOST}, "a slow one stands for several"
    assert set().union(*draws) == set(costs), "every one has its turn"
