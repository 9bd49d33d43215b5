"""Texts of others are made fit to be shown, and every reason has its place in the docs."""

from __future__ import annotations

import re

import pytest

from finetune_api.constants import ClusterReason, Reason
from finetune_api.shown import page_of, safe, safe_line
from scripts.demo_assets import ROOT

# (what was written, what is shown)
TEXTS = [
    ("plain, with ümlauts and 日本語", "plain, with ümlauts and 日本語"),
    ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ("\x1b[31mred\x1b[0m and \x1b[1;38;5;200mbold\x1b[m", "red and bold"),
    ("\x1b]0;a title\x07after", "after"),
    ("\x1b]8;;https://example.com\x1b\\a link\x1b]8;;\x1b\\", "a link"),
    ("\x1b[2J\x1b[Hcleared \x1b[?25lhidden", "cleared hidden"),
    ("\x1bPdevice\x1b\\control \x9b31mC1", "control 31mC1"),
    ("bell\x07 null\x00 delete\x7f", "bell null delete"),
    ("turned \u202etxt.exe\u202c around", "turned txt.exe around"),
    ("a file \udcff here", "a file � here"),
]


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_what_would_act_on_a_terminal_is_taken_out(text: str, shown: str) -> None:
    assert safe(text) == shown
    safe(text).encode()


# (line, limit, what is shown)
LINES = [
    ("a progress bar:  10%\r 50%\r100%", 80, "100%"),
    ("a line as Windows ends it\r", 80, "a line as Windows ends it"),
    ("y" * 1_000_000, 512, "y" * 512),
    ("   \x1b[0m", 80, ""),
]


@pytest.mark.parametrize(("line", "limit", "shown"), LINES, ids=lambda value: str(value)[:20])
def test_a_line_is_one_line_and_not_longer_than_its_limit(line: str, limit: int, shown: str) -> None:
    assert safe_line(line, limit) == shown


@pytest.mark.parametrize("reason", [*Reason, *ClusterReason])
def test_the_place_in_the_docs_is_there(reason: str) -> None:
    path, _, anchor = page_of(reason).partition("#")
    headings = re.findall(r"^## (.+)$", (ROOT / path).read_text(), re.MULTILINE)
    assert [heading.lower() for heading in headings].count(anchor) == 1


def test_a_word_that_is_no_reason_has_none() -> None:
    assert page_of("Evicted") == ""
