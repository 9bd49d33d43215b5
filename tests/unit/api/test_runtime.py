"""ClusterFineTuneRuntimes: Python and the API server agree, and what every job would trip over is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.v1alpha1.rules.rule import violations
from finetune_api.v1alpha1.rules.runtime import RUNTIME_RULES
from finetune_api.v1alpha1.runtime import ClusterFineTuneRuntime
from finetune_api.validation import validate_runtime
from tests.builders import edited
from tests.manifests import BROKEN_RUNTIMES, VALID_RUNTIMES, Broken
from tests.manifests.runtimes import RUNTIME, WHOLE
from tests.unit.api.crdvalidator import CrdValidator


@pytest.mark.parametrize("name", VALID_RUNTIMES)
def test_valid_for_both(name: str, runtime_server: CrdValidator) -> None:
    document = VALID_RUNTIMES[name]
    found, problems = validate_runtime(document)
    assert (found is not None, problems) == (True, [])
    verdict = runtime_server.judge(document)
    assert (verdict.errors, verdict.unknown) == ([], [])
    assert found is not None
    full = found.model_dump(mode="json", exclude_none=True)
    assert validate_runtime(full)[0] == found
    assert runtime_server.judge(full).errors == []


@pytest.mark.parametrize("case", BROKEN_RUNTIMES, ids=lambda case: case.name)
def test_broken_for_both(case: Broken, runtime_server: CrdValidator) -> None:
    found, problems = validate_runtime(case.document)
    assert found is None
    assert [problem.path for problem in problems] == [case.at], problems
    assert case.says in f"{problems[0].message}: {problems[0].hint}"
    verdict = runtime_server.judge(case.document)
    if case.pruned:
        assert (verdict.unknown, verdict.errors) == ([case.at], [])
        return
    assert verdict.errors
    assert all(case.at.startswith(error["path"]) or error["path"].startswith(case.at) for error in verdict.errors), verdict.errors


def test_every_rule_is_broken_by_a_case() -> None:
    idle = [rule for rule in RUNTIME_RULES if not any(any(violations(rule, case.document)) for case in BROKEN_RUNTIMES)]
    assert [f"{rule.scopes} {rule.each} {rule.field}: {rule.message}" for rule in idle] == []


def test_a_model_that_is_made_directly_obeys_the_rules_too() -> None:
    with pytest.raises(ValidationError, match=r"spec.image: an image without a digest can change under a running job"):
        ClusterFineTuneRuntime.model_validate(edited(RUNTIME, {"spec.image": "a/b:latest"}))


def test_a_variable_is_named_by_the_api_server(runtime_server: CrdValidator) -> None:
    (error,) = runtime_server.judge(edited(RUNTIME, {"spec.env": [{"name": "A", "value": ""}, {"name": "HOME", "value": ""}]})).errors
    assert error["path"] == "spec.env"
    assert "variable HOME: the operator sets this variable itself" in error["message"]


@pytest.mark.parametrize(
    ("edits", "path", "says"),
    [
        ({"spec.resources.train.limits": {"cpu": 1, "mem": "1Gi"}}, "spec.resources.train.limits", "mem: no resource has this name"),
        ({"spec.nodeSelector": {"pool": "a", "my key": "b"}}, "spec.nodeSelector", "my key: this key has the wrong form"),
        ({"spec.podLabels": {"team": "a", "finetune.dev/stage": "b"}}, "spec.podLabels", "finetune.dev/stage: keys with the prefixes"),
    ],
)
def test_a_key_is_named_by_both(edits: dict[str, Any], path: str, says: str, runtime_server: CrdValidator) -> None:
    document = edited(RUNTIME, {"spec.resources": {"train": {}}} | edits)
    (problem,) = validate_runtime(document)[1]
    key, _, words = says.partition(": ")
    assert str(problem).startswith(f'{path}: "{key}": {words}')
    (error,) = runtime_server.judge(document).errors
    assert error["path"] == path
    assert says in error["message"]


def test_whole_numbers_are_quantities() -> None:
    found, _ = validate_runtime(WHOLE)
    assert found is not None
    assert found.spec.resources.prepare.requests == {"cpu": "4", "memory": "16Gi"}


@pytest.mark.parametrize(("value", "default"), [("true", True), ("false", False), ("", False)])
def test_default_by_annotation(value: str, default: bool) -> None:
    found, _ = validate_runtime(edited(RUNTIME, {"metadata.annotations": {"finetune.dev/default-runtime": value}}))
    assert found is not None
    assert found.metadata.is_default is default
