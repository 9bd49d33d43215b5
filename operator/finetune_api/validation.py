"""Everything that is wrong with a manifest, at once: in the manifest's own terms, with what to write instead.

Two passes over the same document. pydantic judges each field (type, bounds, names); the cross-field rules judge the rest, and say nothing of
what the first pass has refused. Pure, and quick: no YAML, no file, no torch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from pydantic import BaseModel, ValidationError

from finetune_api import shape
from finetune_api.cel import BROKEN
from finetune_api.problem import Problem, Severity, nearest
from finetune_api.v1alpha1.fine_tune_job import RULES_APART, FineTuneJob
from finetune_api.v1alpha1.rules import RULES, UNIQUE, Rule, Unique, Violation, broken_rules

if TYPE_CHECKING:
    from finetune_api.v1alpha1.runtime import ClusterFineTuneRuntime

__all__ = ["Problem", "Severity", "changes", "load_problems", "validate", "validate_runtime"]
M = TypeVar("M", bound=BaseModel)


def load_problems(document: object) -> list[Problem]:
    """Return every problem of a FineTuneJob's manifest, warnings among them, in the order of its fields."""
    return validate(document)[1]


def validate(document: object) -> tuple[FineTuneJob | None, list[Problem]]:
    """Return the job, or None where there is an error, and every problem of the manifest."""
    return _validate(document, FineTuneJob, RULES, UNIQUE)


def validate_runtime(document: object) -> tuple[ClusterFineTuneRuntime | None, list[Problem]]:
    """Return the runtime, or None where there is an error, and every problem of the manifest."""
    from finetune_api.v1alpha1.rules.runtime import RUNTIME_RULES, RUNTIME_UNIQUE  # a job's check, which must be quick, needs neither
    from finetune_api.v1alpha1.runtime import ClusterFineTuneRuntime

    return _validate(document, ClusterFineTuneRuntime, RUNTIME_RULES, RUNTIME_UNIQUE)


def _validate(document: object, model: type[M], rules: Sequence[Rule], unique: Sequence[Unique]) -> tuple[M | None, list[Problem]]:
    if not isinstance(document, dict):
        return None, [
            Problem("", f"a manifest is a mapping, and this is {shape.kind_of(document)}", "begin with apiVersion, kind, metadata, spec")
        ]
    found, problems, readable = None, [], document
    try:
        found = model.model_validate(document, context=RULES_APART)
    except ValidationError as error:
        problems = shape.problems(error, document, model)
        readable = _without(document, problems)
    problems += [_problem(violation) for violation in broken_rules(readable, rules=rules, unique=unique)]
    problems.sort(key=lambda problem: _position(problem, document))
    return (None if any(problem.severity is Severity.ERROR for problem in problems) else found), problems


def changes(old: Mapping[str, object], new: Mapping[str, object]) -> list[Problem]:
    """Return what is wrong with changing one manifest into another; both must be valid by themselves."""
    found = broken_rules(cast("dict[str, object]", new), cast("dict[str, object]", old))
    return [problem for problem in (_problem(violation) for violation in found) if problem.severity is Severity.ERROR]


def _problem(violation: Violation) -> Problem:
    message = violation.message
    if isinstance(violation.found, str | int | float) and not isinstance(violation.found, bool):
        message = f"{shape.shown(violation.found)}: {message}"
    near = nearest(str(violation.found), violation.choices) if violation.choices else None
    hint = f"did you mean {near}? Else {violation.instead}" if near else violation.instead
    return Problem(violation.path, message, hint, Severity.WARNING if violation.warning else Severity.ERROR)


def _position(problem: Problem, document: object) -> list[int]:
    """Return where a problem stands in the document, for sorting: the number of each field on the way, the last where it is missing."""
    numbers: list[int] = []
    for part in problem.location or shape.parts_of(problem.path):
        if isinstance(document, dict):
            names = list(document)
            numbers.append(names.index(part) if part in document else len(names))
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int):
            numbers.append(part)
            document = document[part] if part < len(document) else None
    return numbers


def _without(document: dict[str, object], problems: list[Problem]) -> dict[str, object]:
    """Return the document with BROKEN where a field was refused, so that the rules do not speak of it again."""
    whole = copy.deepcopy(document)
    for problem in problems:
        owner: object = whole
        *owners, last = problem.location
        for part in owners:
            if isinstance(owner, dict) and isinstance(part, str):
                owner = owner.get(part)
            elif isinstance(owner, list) and isinstance(part, int) and part < len(owner):
                owner = owner[part]
        if isinstance(owner, dict):
            owner[last] = BROKEN
            if problem.meant and problem.meant not in owner:
                owner[problem.meant] = BROKEN
        elif isinstance(owner, list) and isinstance(last, int) and last < len(owner):
            owner[last] = BROKEN
    return whole
