"""Pages that must have a line for each of something: decisions by their files, words of a status by the constants."""

from __future__ import annotations

import re

from finetune_api.constants import AttemptReason, ConditionReason, ConditionType, NoticeReason
from finetune_api.kinds import FINE_TUNE_JOB
from finetune_api.v1alpha1.status import Phase
from finetune_operator.status import WARNINGS
from scripts.demo_assets import ROOT

DECISIONS = ROOT / "docs/decisions"
CONDITIONS = (ROOT / "docs/reference/conditions.md").read_text(encoding="utf-8")


def words(section: str) -> set[str]:
    """The names in the first column of the tables of a section."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", CONDITIONS, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_index_of_decisions_has_each_once_in_order() -> None:
    listed = re.findall(r"^\| (\d+) \| \[[^\]]+\]\((\d{4}-[\w-]+\.md)\)", (DECISIONS / "README.md").read_text(), re.MULTILINE)
    files = sorted(path.name for path in DECISIONS.glob("[0-9]*.md"))
    assert [name for _, name in listed] == files
    assert [int(number) for number, _ in listed] == [int(name[:4]) for name in files]
    for path in DECISIONS.glob("[0-9]*.md"):
        assert path.read_text().startswith(f"# {int(path.name[:4])}. "), path.name


def test_every_word_of_a_status_is_explained_and_no_other() -> None:
    assert words("Phases") == {*Phase}
    assert words("Conditions") == {*ConditionType}
    assert words("Reasons") == {*ConditionReason}
    assert words("How an attempt ended") == {*AttemptReason}
    assert words("Warnings") == {*NoticeReason} - {NoticeReason.NO_PROGRESS}


def test_the_page_says_which_events_are_warnings() -> None:
    (said,) = re.findall(r"^They are `Warning` where (.*?) All others are `Normal`", CONDITIONS, re.DOTALL | re.MULTILINE)
    assert {*re.findall(r"`(\w+)`", said)} == {*WARNINGS}


def test_the_page_explains_every_column() -> None:
    (section,) = re.findall(r"^## Columns of kubectl get\n(.*?)(?=^## )", CONDITIONS, re.DOTALL | re.MULTILINE)
    named = {name for row in re.findall(r"^\| ([A-Z, ]+) \|", section, re.MULTILINE) for name in row.split(", ")}
    assert named == {column.name.upper() for column in FINE_TUNE_JOB.columns} - {"AGE"}
