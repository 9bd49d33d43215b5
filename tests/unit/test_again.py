"""The second try: for few tests, of tiers with real programs alone, and never unsaid."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.again import MOST, again

CLUSTER = "tests/apiserver/test_cli.py::test_a"


@pytest.mark.parametrize(
    ("first", "failed", "second", "ends", "tried"),
    [
        (0, [], 0, 0, 1),
        (1, [CLUSTER], 0, 0, 2),
        (1, [CLUSTER], 1, 1, 2),
        (1, [f"{CLUSTER}{n}" for n in range(MOST)], 0, 0, 2),
        (1, [f"{CLUSTER}{n}" for n in range(MOST + 1)], 0, 1, 1),
        (1, ["tests/resume/test_kills.py::test_a"], 0, 1, 1),
        (1, [CLUSTER, "tests/unit/test_a.py::test_a"], 0, 1, 1),
        (1, [], 0, 1, 1),
        (2, [CLUSTER], 0, 2, 1),
        (5, [], 0, 5, 1),
    ],
    ids=[
        "all pass",
        "passes then",
        "fails twice",
        "as many as may",
        "too many",
        "resume",
        "one without",
        "none known",
        "broken off",
        "no tests",
    ],
)
def test_who_gets_a_second_try(first: int, failed: list[str], second: int, ends: int, tried: int) -> None:
    codes = [second, first]
    runs: list[Sequence[str]] = []

    def run(arguments: Sequence[str]) -> int:
        runs.append(arguments)
        return codes.pop()

    assert again(["-n", "2"], run, lambda: failed) == ends
    assert len(runs) == tried
    assert tried == 1 or runs[1][-len(failed) :] == failed, "alone, and nothing beside them"


def test_a_second_try_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    codes = [0, 1]
    again([], lambda _: codes.pop(), lambda: [CLUSTER])
    assert f"PASSED AT THE SECOND TRY, look into the first: {CLUSTER}" in capsys.readouterr().out
