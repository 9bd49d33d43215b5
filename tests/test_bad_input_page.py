"""docs/reference/bad-input.md: every message that the page quotes is shown by the test, or the broken manifest, that stands beside it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from finetune_api.validation import load_problems, validate_runtime
from scripts.demo_assets import ROOT
from tests.manifests import BROKEN, BROKEN_RUNTIMES

PAGE = (ROOT / "docs/reference/bad-input.md").read_text()
ROWS = re.findall(r"^\| (.+?) \| (?:`(.+)`|nothing: .+?) \| (.+?) \|$", PAGE, re.MULTILINE)
MANIFESTS = {f"manifest: {case.name}": (case, load_problems(case.document)) for case in BROKEN}
MANIFESTS |= {f"runtime: {case.name}": (case, validate_runtime(case.document)[1]) for case in BROKEN_RUNTIMES}


def test_the_page_has_every_line() -> None:
    assert len(ROWS) == PAGE.count("\n| ") - 2  # without the head and the line below it


@pytest.mark.parametrize(("message", "shown_by"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_message_is_shown(message: str, shown_by: str) -> None:
    if shown_by in MANIFESTS:
        case, problems = MANIFESTS[shown_by]
        assert [problem for problem in problems if problem.path == case.at and message in str(problem)]
        return
    file, name = shown_by.split("::")
    said = [plain(text) for text in expected(file, name)]
    assert not message or [text for text in said if plain(message) in text], "the test does not expect these words"


def test_only_what_a_test_expects_counts() -> None:
    """Neither a name, nor a docstring, nor what another test of the file says."""
    said = expected("tests/unit/data/test_formats.py", "test_a_mark_is_noted_in_the_report")
    assert "a.jsonl starts with a UTF-8 byte-order mark, which was skipped" in said
    assert not [text for text in said if "MARK" in text or "a.parquet" in text]
    with pytest.raises(StopIteration):
        expected("tests/unit/data/test_formats.py", "test_that_is_none")


def plain(text: str) -> str:
    """Without what makes a regular expression of it; a number that may be any is N."""
    return text.replace(r"\d+", "N").replace("\\", "")


def expected(file: str, name: str) -> list[str]:
    """The literals that a test compares with: those of its asserts, of its `match=`, and of the tables that it is made from."""
    module = _parsed(file)
    test = next(node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name)
    tables = [*test.decorator_list, *(node.iter for node in ast.walk(test) if isinstance(node, ast.For))]
    used = {node.id for table in tables for node in ast.walk(table) if isinstance(node, ast.Name)}
    tables += [node for node in module.body if isinstance(node, ast.Assign | ast.AnnAssign) and used & _names(node)]
    return [text for part in (*tables, *_judged(test)) for text in _literals(part)]


@cache
def _parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


def _names(assignment: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = assignment.targets if isinstance(assignment, ast.Assign) else [assignment.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _judged(test: ast.FunctionDef) -> Iterator[ast.AST]:
    for node in ast.walk(test):
        match node:
            case ast.Assert():
                yield node.test
            case ast.keyword(arg="match"):
                yield node.value


def _literals(part: ast.AST) -> Iterator[str]:
    for node in ast.walk(part):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
