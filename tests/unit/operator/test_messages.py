"""A trainer's last words, whole, cut, foreign or missing."""

from __future__ import annotations

import pytest

from finetune_operator.messages import log_lines, read_report, read_result, tidy
from tests.unit.operator.worlds import pages, published


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"outcome":"Won"}', '{"outcome":"Succeeded","exitCode":99}', "Traceback\n…", published()[:-5]]
)
def test_what_is_no_whole_result_is_none(text: str) -> None:
    assert read_result(text) is None


def test_a_newer_trainers_fields_are_let_through() -> None:
    told = read_result(published(somethingNew=1))
    assert told is not None
    assert told.artifacts[0].kind == "adapter"


def test_a_report_is_put_together_in_any_order() -> None:
    told = read_report(list(reversed(pages(published(message="ü" * 3000)))))
    assert told is not None
    assert told.message == "ü" * 3000


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told[:2],
        lambda told: [told[0], told[0], told[2]],
        lambda told: [told[0], told[1][:-3], told[2]],
        lambda told: [told[0].replace('"data": "', '"data": "AAAA'), *told[1:]],
        lambda told: ["", *told[1:]],
        lambda told: [],
    ],
    ids=["missing", "twice", "cut", "damaged", "empty", "none"],
)
def test_a_report_that_is_not_whole_is_none(change: object) -> None:
    assert callable(change)
    assert read_report(change(pages(published(message="x" * 2000)))) is None


def test_a_log_is_cut_and_masked() -> None:
    lines = [f"line {number}" for number in range(100)] + [
        "",
        "token=abcdefghijk",
        "Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.x",
        "y" * 2000,
    ]
    told = log_lines("\n".join(lines))
    assert len(told) == 20
    assert "token=…" in told
    assert "Authorization: Bearer …" in told
    assert len(told[-1]) == 512
    assert log_lines('{"outcome":"Fai') == []
    assert tidy(["hf_abcdefghijklmnopqrstuvwxyz"]) == ["hf_abcdef…"]


# (lines of a log, what a status says)
HOSTILE = [
    (["\x1b[31mError\x1b[0m: \x1b]0;title\x07no"], ["Error: no"]),
    (["\x1b[2K", "\x00\x07", "the end"], ["the end"]),
    (["z" * 1_000_000], ["z" * 512]),
    (["x" * 500 + " token=" + "s" * 5000], ["x" * 500 + " token=…"]),
    (["a \udcff file"], ["a � file"]),
    ([" 1%\r 50%\r 99%"], [" 99%"]),
]


@pytest.mark.parametrize(("lines", "told"), HOSTILE, ids=["escapes", "controls", "1-mb", "a-token-at-the-limit", "no-unicode", "a-bar"])
def test_lines_that_would_harm_a_terminal_or_a_status_are_made_safe(lines: list[str], told: list[str]) -> None:
    assert tidy(lines) == told
