"""Python and the API server judge the same manifests, and agree: on the verdict, on the place, and on the words of the rules."""

from __future__ import annotations

import pytest

from finetune_api.v1alpha1.rules import RULES, broken_rules
from finetune_api.v1alpha1.rules.rule import violations
from finetune_api.validation import Severity, changes, load_problems, validate
from tests.builders import edited
from tests.manifests import BROKEN, CHANGES, SHAPES, VALID, Broken, Change
from tests.unit.api.crdvalidator import CrdValidator


def _id(case: Broken | Change) -> str:
    return case.name


def _is_within(path: str, other: str) -> bool:
    return path == other or path.startswith((f"{other}.", f"{other}["))


@pytest.mark.parametrize("name", VALID)
def test_valid_for_both(name: str, api_server: CrdValidator) -> None:
    document = VALID[name]
    job, problems = validate(document)
    assert job is not None
    assert [problem for problem in problems if problem.severity is Severity.ERROR] == []
    verdict = api_server.judge(document)
    assert verdict.errors == []
    assert verdict.unknown == []


@pytest.mark.parametrize("name", VALID)
def test_defaults_filled_in_break_no_rule(name: str, api_server: CrdValidator) -> None:
    job, _ = validate(VALID[name])
    assert job is not None
    full = job.model_dump(mode="json", exclude_none=True)
    assert validate(full)[0] == job
    assert api_server.judge(full).errors == []


@pytest.mark.parametrize("case", BROKEN, ids=_id)
def test_broken_for_both(case: Broken, api_server: CrdValidator) -> None:
    job, problems = validate(case.document)
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    assert job is None
    assert [problem.path for problem in errors] == [case.at], errors
    assert case.says in f"{errors[0].message}: {errors[0].hint}"

    verdict = api_server.judge(case.document)
    if case.pruned:
        assert verdict.unknown == [case.at]
        assert verdict.errors == []
        return
    said = [error for error in verdict.errors if "some validation rules were not checked" not in error["message"]]
    assert said
    assert all(_is_within(case.at, error["path"]) or _is_within(error["path"], case.at) for error in said), verdict.errors


@pytest.mark.parametrize("case", [case for case in BROKEN if case not in SHAPES], ids=_id)
def test_rules_speak_in_the_same_words(case: Broken, api_server: CrdValidator) -> None:
    ours = {f"{found.message}: {found.instead}" for found in broken_rules(case.document, unique=()) if not found.warning}
    theirs = [error["message"] for error in api_server.judge(case.document).errors if error["type"] != "FieldValueDuplicate"]
    assert len(theirs) == len(ours)
    assert all(any(message.endswith(words) for message in theirs) for words in ours)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lora continued as full", "stage s0: an adapter cannot continue as another method"),
        ("the second of three", "stage s1: an adapter cannot continue as another method"),
        ("a hand-over on the last stage", "stage task: the last stage hands over to nobody"),
        ("a gate on no suite", "gate on in-domian loss: there is no suite of this name"),
        ("a metric of another objective", "f1Macro: this suite's objective has no such metric"),
        ("plain text for pairs", "file://task.jsonl: plain text has no columns"),
        ("masked and causal in one job", "stage domain: no model is both a masked language model and a causal one"),
    ],
)
def test_a_rule_over_a_list_names_the_entry(name: str, says: str, api_server: CrdValidator) -> None:
    """The API server's path ends at the list."""
    case = next(case for case in BROKEN if case.name == name)
    assert [error for error in api_server.judge(case.document).errors if says in error["message"]]


@pytest.mark.parametrize("case", CHANGES, ids=_id)
def test_changes(case: Change, api_server: CrdValidator) -> None:
    new = edited(case.base, case.edits)
    problems = changes(case.base, new)
    verdict = api_server.judge(new, case.base)
    places = [] if case.refused_at is None else [case.refused_at]
    assert [problem.path for problem in problems] == places
    assert [error["path"] for error in verdict.errors] == places


def test_every_rule_is_broken_by_a_case() -> None:
    documents = [(case.document, None) for case in BROKEN] + [(edited(case.base, case.edits), case.base) for case in CHANGES]
    idle = [rule for rule in RULES if not rule.warning and not any(any(violations(rule, new, old)) for new, old in documents)]
    assert [f"{rule.scopes} {rule.each} {rule.field}: {rule.message}" for rule in idle] == []


def test_all_problems_at_once() -> None:
    everything = edited(
        VALID["two stages with suites and gates"],
        {
            "spec.seed": "7",
            "spec.stages[0].objectve": "x",
            "spec.stages[0].training": {"learningRate": -1, "warmupSteps": 1, "warmupRatio": 0.1},
            "spec.stages[1].handOver": "merge",
            "spec.evaluation.gates[0].suite": "nowhere",
        },
    )
    assert [problem.path for problem in load_problems(everything)] == [
        "spec.stages[0].objectve",
        "spec.stages[0].training.learningRate",
        "spec.stages[0].training.warmupRatio",
        "spec.stages[1].handOver",
        "spec.evaluation.gates[0].suite",
        "spec.seed",
    ]


@pytest.mark.parametrize("document", [None, [], "text", 3], ids=["null", "list", "text", "number"])
def test_what_is_no_mapping(document: object) -> None:
    job, (problem,) = validate(document)
    assert job is None
    assert "begin with apiVersion" in problem.hint
