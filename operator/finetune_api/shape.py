"""What pydantic says of a field, in plain words: no type names of Python, the value that was found, the name that was meant."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Any, Final, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finetune_api.problem import Problem, nearest, plain

_LONGEST_SHOWN: Final = 60
_Part = str | int


def kind_of(value: object) -> str:
    """Return what a value of a manifest is, in the words of YAML."""
    match value:
        case None:
            return "empty (null)"
        case bool():
            return f"{str(value).lower()} (true or false)"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {shown(value)}"
        case list():
            return "a list"
        case dict():
            return "a mapping"
    return f"a {type(value).__name__}"


def shown(value: object) -> str:
    """Return a value as it would stand in the manifest, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def path_of(location: tuple[_Part, ...]) -> str:
    """Return spec.stages[0].name for ("spec", "stages", 0, "name")."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parts_of(path: str) -> list[str | int]:
    """Return ["spec", "stages", 0] for spec.stages[0]."""
    return [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]


def problems(error: ValidationError, document: dict[str, object], root: type[BaseModel]) -> list[Problem]:
    """Return each of pydantic's findings on a document of `root` as a problem."""
    return [_problem(details, document, root) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, document: dict[str, object], root: type[BaseModel]) -> Problem:
    location = details["loc"]
    if details["type"] == "extra_forbidden":
        return _unknown(location, root)
    say = _WORDS.get(details["type"])
    context: Mapping[str, Any] = details.get("ctx", {})
    message, hint = say(details["input"], context) if say else (details["msg"], "correct the value")
    if details["type"] in _BOUNDS and (usual := _USUAL.get(str(location[-1]))):
        hint += f" ({usual} is usual)"
    if details["type"] == "missing":
        message, hint = _missing(location, document)
    elif details["type"] == "list_type" and isinstance(details["input"], str) and _model_at(location, root) is None:
        hint = f"write [{_in_brackets(details['input'])}], since this field takes several"
    return Problem(path_of(location), message, hint, location=location)


def _unknown(location: tuple[_Part, ...], root: type[BaseModel]) -> Problem:
    *owner, name = location
    model = _model_at(tuple(owner), root)
    names = _names(model)
    near = nearest(str(name), names)
    if near is None or plain(near) != plain(str(name)):
        elsewhere = _elsewhere(str(name), root)
        if elsewhere:
            return Problem(
                path_of(location), "there is no such field here", f"it belongs in {elsewhere[0]}, as {elsewhere[1]}", location=location
            )
    hint = f"did you mean {near}?" if near else f"the fields here are {', '.join(names)}"
    return Problem(path_of(location), "there is no such field", hint, location=location, meant=near or "")


def _names(model: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _model_of(annotation: object) -> type[BaseModel] | None:
    """Return the model inside an annotation such as `list[Stage] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if argument is not NoneType and (model := _model_of(argument)):
            return model
    return None


def _model_at(location: tuple[_Part, ...], root: type[BaseModel]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = root
    for part in location:
        if isinstance(part, str) and model is not None:
            model = next((_model_of(field.annotation) for name, field in model.model_fields.items() if (field.alias or name) == part), None)
    return model


def _elsewhere(name: str, root: type[BaseModel]) -> tuple[str, str] | None:
    """Return (where, name) of a field of this name, if there is one and only one in the spec."""
    found = [place for place in _walk(root.model_fields["spec"].annotation, "spec") if plain(place[1]) == plain(name)]
    return found[0] if len(found) == 1 else None


def _walk(annotation: object, path: str) -> Iterator[tuple[str, str]]:
    model = _model_of(annotation)
    for name, field in (model.model_fields if model else {}).items():
        alias = field.alias or name
        yield path, alias
        inside = f"{path}.{alias}" + ("[]" if "list[" in str(field.annotation) else "")
        yield from _walk(field.annotation, inside)


def _missing(location: tuple[_Part, ...], document: object) -> tuple[str, str]:
    """Tell a field that is not there from one without a value (null), which counts as left out."""
    *owners, name = location
    for part in owners:
        document = cast("Any", document)[part]
    if isinstance(document, dict) and name in document:
        return "this field is required, and it is empty (null)", f"give {name} a value"
    return "this field is required", f"add {name}"


_Words = Callable[[object, Mapping[str, Any]], tuple[str, str]]


def _wrong_type(wanted: str, hint: str) -> _Words:
    return lambda value, _: (f"{wanted} is needed here, and this is {kind_of(value)}", _unquoted(value) or hint)


def _unquoted(value: object) -> str | None:
    """Return advice for a number that YAML reads as text: quoted, or 2e-5 without a dot (YAML 1.1)."""
    if not isinstance(value, str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if "e" in value.lower():
        return f"write {number:.1e} without quotes, and with a dot before e"
    return f"write {value.strip()} without quotes"


def _in_brackets(text: str) -> str:
    """Return a text as it can stand in a list of YAML; names with commas between them become several."""
    return text if re.fullmatch(r"[\w.*?/, -]+", text) else json.dumps(text, ensure_ascii=False)


def _bound(words: str, key: str) -> _Words:
    def say(value: object, context: Mapping[str, Any]) -> tuple[str, str]:
        return f"{shown(value)} is out of bounds", f"write a number {words} {context[key]:g}"

    return say


def _length(problem: str, words: str, key: str, unit: str) -> _Words:
    def say(value: object, context: Mapping[str, Any]) -> tuple[str, str]:
        if isinstance(value, str | list | dict) and not value:
            return "this is empty", f"write at {words} {_counted(context[key], unit)}"
        size = f" ({_counted(len(value), unit)})" if isinstance(value, str | list | dict) else ""
        return f"this is too {problem}{size}", f"write at {words} {_counted(context[key], unit)}"

    return say


def _counted(number: int, unit: str) -> str:
    """Return "1 entry" for 1 and "entries"."""
    singular = {"entries": "entry", "characters": "character"}
    return f"{number} {singular[unit] if number == 1 else unit}"


def _choice(value: object, context: Mapping[str, Any]) -> tuple[str, str]:
    names = [word.strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(", ")]
    near = nearest(value, names) if isinstance(value, str) else None
    among = f"one of {', '.join(names)}" if len(names) > 1 else names[0]
    return f"{shown(value)} is not {among}", f"did you mean {near}?" if near else f"write {among}"


FORMS: Final = (
    ("^[a-z0-9](", "write lower-case letters, digits and hyphens, beginning and ending with a letter or digit"),
    (
        "hf://datasets/",
        "write file://PATH, pvc://CLAIM/PATH or hf://datasets/OWNER/NAME/PATH, without spaces; no other kind of source is supported yet",
    ),
    ("^[A-Za-z0-9._/-]", "write a commit, a tag or a branch"),
    ("Ki|Mi|Gi", "write a quantity of Kubernetes, such as 4, 500m or 16Gi"),
    ("^([A-Za-z0-9](", "write at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"),
    ("^[a-z0-9.-]+/", "write DOMAIN/NAME, such as nvidia.com/gpu"),
    ("^[A-Za-z_]", "write letters, digits and '_', beginning with no digit"),
)
"""What stands in a pattern, and what to write for it."""


def _pattern(value: object, context: Mapping[str, Any]) -> tuple[str, str]:
    pattern = str(context["pattern"])
    hint = next(words for part, words in FORMS if part in pattern)
    return f"{shown(value)} is not of the right form", hint


_BOUNDS: Final = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_USUAL: Final = {"learningRate": "2e-5 to 1e-3"}
"""What is usual where the bounds are far from it."""
_WORDS: Final[dict[str, _Words]] = {
    "string_type": _wrong_type("a text", "write a text, in quotes if it looks like a number"),
    "int_type": _wrong_type("a whole number", "write a whole number"),
    "int_from_float": _wrong_type("a whole number", "write a whole number"),
    "float_type": _wrong_type("a number", "write a number"),
    "finite_number": _wrong_type("a finite number", "write a number"),
    "bool_type": _wrong_type("true or false", "write true or false, without quotes"),
    "list_type": _wrong_type("a list", "write a list: [..., ...], or lines that begin with '- '"),
    "dict_type": _wrong_type("a mapping", "write fields under it, as name: value"),
    "model_type": _wrong_type("a mapping", "write fields under it, as name: value"),
    "greater_than": _bound("greater than", "gt"),
    "greater_than_equal": _bound("of at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("of at most", "le"),
    "string_too_short": _length("short", "least", "min_length", "characters"),
    "string_too_long": _length("long", "most", "max_length", "characters"),
    "too_short": _length("short", "least", "min_length", "entries"),
    "too_long": _length("long", "most", "max_length", "entries"),
    "string_pattern_mismatch": _pattern,
    "enum": _choice,
    "literal_error": _choice,
}
