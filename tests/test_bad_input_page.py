"""docs/reference/bad-input.md: every message that the page quotes is shown by the test, or the broken manifest, that stands beside it."""

from __future__ import annotations

import re

import pytest

from finetune_api.validation import load_problems, validate_runtime
from scripts.demo_assets import ROOT
from tests.manifests import BROKEN, BROKEN_RUNTIMES

ROWS = re.findall(r"^\| (.+?) \| `(.+)` \| (.+?) \|$", (ROOT / "docs/reference/bad-input.md").read_text(), re.MULTILINE)
MANIFESTS = {f"manifest: {case.name}": (case, load_problems(case.document)) for case in BROKEN}
MANIFESTS |= {f"runtime: {case.name}": (case, validate_runtime(case.document)[1]) for case in BROKEN_RUNTIMES}


def test_the_page_has_every_line() -> None:
    assert len(ROWS) == (ROOT / "docs/reference/bad-input.md").read_text().count("\n| ") - 2  # without the head and the line below it


@pytest.mark.parametrize(("message", "shown_by"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_message_is_shown(message: str, shown_by: str) -> None:
    if shown_by in MANIFESTS:
        case, problems = MANIFESTS[shown_by]
        assert [problem for problem in problems if problem.path == case.at and message in str(problem)]
        return
    file, name = shown_by.split("::")
    source = (ROOT / file).read_text()
    assert f"def {name}(" in source
    assert message.replace("\\", "") in source.replace("\\", ""), "the test's file does not say so"
