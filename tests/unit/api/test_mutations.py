"""Random damage to valid manifests: validation never raises, and Python and the API server still agree."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from finetune_api.kinds import FINE_TUNE_JOB, RUNTIME, Kind
from finetune_api.problem import Problem
from finetune_api.schema import Schema, node_at, structural_schema
from finetune_api.validation import Severity, validate, validate_runtime
from tests.builders import LEFT_OUT, Document, edited
from tests.manifests import VALID, VALID_RUNTIMES
from tests.unit.api.crdvalidator import CrdValidator

JUNK: Final = (
    LEFT_OUT,
    None,
    "",
    "x",
    "a b",
    "lora",
    "full",
    "classification",
    "maskedLanguageModeling",
    "continue",
    "merge",
    "stack",
    "task",
    "exactMatch",
    "file://x",
    "pvc://models/../x",
    "hf://a/b",
    "hf://datasets/a/b",
    "1",
    0,
    1,
    -1,
    5,
    0.5,
    1e12,
    True,
    False,
    [],
    ["x"],
    ["merged", "adapter"],
    {},
    {"a": 1},
    [{}],
    "y" * 40000,
)
Judge = Callable[[object], tuple[Any, list[Problem]]]
MUTATIONS_EACH: Final = 25
PLAUSIBLE: Final = 0.6
"""The share of damage that only the rules can find."""


def full(document: Document, judge: Judge) -> Document:
    """Return the manifest with every default written out, so that there is more to damage."""
    valid, _ = judge(document)
    assert valid is not None
    found: Document = valid.model_dump(mode="json", exclude_none=True)
    return found


def paths(value: Any, path: str) -> Iterator[str]:
    """Yield the path of every field and entry."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, f"{path}[{index}]")


def plausible(schema: Schema, path: str, dice: random.Random) -> Any:
    """Return a value that the schema takes at a path, so that only the rules can refuse it."""
    try:
        node = node_at(schema, re.sub(r"\[\d+\]", "[]", path))
    except KeyError:  # a key of a map, or a part of what the schema leaves free
        return LEFT_OUT
    if "x-kubernetes-int-or-string" in node:
        return dice.choice([0, 3, "500m", "16Gi"])
    if "enum" in node:
        return dice.choice(node["enum"])
    if node["type"] == "boolean":
        return dice.choice([True, False])
    if node["type"] in ("integer", "number"):
        return dice.choice([node["minimum"] + 1, min(node["maximum"] / 2, 0.5)][: 1 if node["type"] == "integer" else 2])
    if node["type"] == "string":
        return dice.choice(["domain", "task", "s1", "in-domain", "knowledge", "file://x", "hf://a/b", "hf://datasets/a/b", "pvc://a/b"])
    return LEFT_OUT


@pytest.mark.parametrize("name", VALID)
def test_damaged_jobs_get_one_verdict(name: str, api_server: CrdValidator) -> None:
    agree(name, VALID[name], FINE_TUNE_JOB, validate, api_server)


@pytest.mark.parametrize("name", VALID_RUNTIMES)
def test_damaged_runtimes_get_one_verdict(name: str, runtime_server: CrdValidator) -> None:
    agree(name, VALID_RUNTIMES[name], RUNTIME, validate_runtime, runtime_server)


def agree(name: str, valid: Document, kind: Kind, judge: Judge, server: CrdValidator) -> None:
    """Damage a valid manifest at random; the same damage each time that the test runs."""
    dice, schema = random.Random(name), structural_schema(kind)
    whole = full(valid, judge)
    places = [path for path in paths(whole["spec"], "spec") if path != "spec" and "/" not in path and "affinity." not in path.lower()]
    for _ in range(MUTATIONS_EACH):
        place = dice.choice(places)
        edits = {place: plausible(schema, place, dice) if dice.random() < PLAUSIBLE else dice.choice(JUNK)}
        document = edited(whole, edits)
        found, problems = judge(document)
        verdict = server.judge(document)
        assert (found is None) is (any(problem.severity is Severity.ERROR for problem in problems)), edits
        assert (found is None) is (verdict.errors != [] or verdict.unknown != []), (edits, problems, verdict.errors, verdict.unknown)
        for problem in problems:
            assert problem.path
            assert problem.message
            assert problem.hint
            assert "pydantic" not in str(problem)
