"""The value of an expression over a manifest as it was written: mappings, lists, strings, numbers.

An absent field and null are the same, as in the API server. What was refused by the schema already is BROKEN: an expression that depends on
it is undecided, so that one mistake is told once. `||`, `&&`, `all` and `exists` absorb that where the other side decides, as CEL does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from finetune_api.cel.syntax import Node, parse


class _Broken:
    """A value that the schema refuses."""

    def __repr__(self) -> str:
        return "BROKEN"


BROKEN: Final = _Broken()


class Undecided(Exception):
    """The expression needs a value that is broken, missing or of another type."""


@dataclass(frozen=True)
class _Optional:
    value: object
    """None where there is none."""


_Names = Mapping[str, object]


def evaluate(text: str, names: _Names) -> object:
    """Return the value of an expression, given those of its free names; raise Undecided."""
    return _value(parse(text), names)


def _value(node: Node, names: _Names) -> object:
    value = _KINDS[node.kind](node, names)
    if value is BROKEN:
        raise Undecided(node)
    return value


def _name(node: Node, names: _Names) -> object:
    return names[str(node.value)]


def _select(node: Node, names: _Names) -> object:
    value = _field(_value(node.children[0], names), str(node.value))
    if value is None:
        raise Undecided(f"no {node.value}")
    return value


def _field(owner: object, name: str) -> object:
    if not isinstance(owner, Mapping):
        raise Undecided(f"{name} of {type(owner).__name__}")
    return owner.get(name)


def _optional(node: Node, names: _Names) -> object:
    owner = _value(node.children[0], names)
    if isinstance(owner, _Optional):
        if owner.value is None:
            return owner
        owner = owner.value
    value = _field(owner, str(node.value))
    if value is BROKEN:
        raise Undecided(node.value)
    return _Optional(value)


def _index(node: Node, names: _Names) -> object:
    items, position = _list(node.children[0], names), _value(node.children[1], names)
    if not isinstance(position, int) or not 0 <= position < len(items):
        raise Undecided(f"no entry {position}")
    return items[position]


def _list(node: Node, names: _Names) -> Sequence[object]:
    value = _value(node, names)
    if not isinstance(value, list):
        raise Undecided(f"{type(value).__name__} is no list")
    return value


def _items(node: Node, names: _Names) -> Sequence[object]:
    """What a macro goes over: a list's entries, a map's keys."""
    value = _value(node, names)
    return [key for key, inner in value.items() if inner is not None] if isinstance(value, Mapping) else _list(node, names)


def _call(node: Node, names: _Names) -> object:
    if node.value == "has":
        return _has(node.children[0], names)
    owner, *rest = (_value(child, names) for child in node.children)
    match node.value, owner, rest:
        case "size", str() | list(), []:
            return len(owner)
        case "hasValue", _Optional(), []:
            return owner.value is not None
        case "orValue", _Optional(), [default]:
            return default if owner.value is None else owner.value
        case "startsWith", str(), [str() as prefix]:
            return owner.startswith(prefix)
        case "matches", str(), [str() as pattern]:
            return re.search(pattern, owner) is not None
        case "endsWith", str(), [str() as suffix]:
            return owner.endswith(suffix)
        case "contains", str(), [str() as part]:
            return part in owner
    raise Undecided(f"{node.value} of {type(owner).__name__}")


def _has(argument: Node, names: _Names) -> bool:
    value = _field(_value(argument.children[0], names), str(argument.value))
    if value is BROKEN:
        raise Undecided(argument.value)
    return value is not None


def _macro(node: Node, names: _Names) -> object:
    items, variable, body = _items(node.children[0], names), str(node.children[1].value), node.children[2]
    inner = [{**names, variable: item} for item in items]
    if node.value in ("all", "exists"):
        return _first(((body, n) for n in inner), decides=node.value == "exists")
    if node.value == "exists_one":
        return sum(_value(body, n) is True for n in inner) == 1
    if node.value == "filter":
        return [n[variable] for n in inner if _value(body, n) is True]
    return [_value(body, n) for n in inner]


def _first(terms: Iterable[tuple[Node, _Names]], *, decides: bool) -> bool:
    """Return `decides` if a term has that value, raise Undecided if none has and one is undecided, else return the opposite."""
    undecided: Undecided | None = None
    for body, names in terms:
        try:
            if _value(body, names) is decides:
                return decides
        except Undecided as error:
            undecided = error
    if undecided is not None:
        raise undecided
    return not decides


def _unary(node: Node, names: _Names) -> object:
    value = _value(node.children[0], names)
    if node.value == "!" and isinstance(value, bool):
        return not value
    return -_number(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Undecided(f"{type(value).__name__} is no number")
    return value


def _binary(node: Node, names: _Names) -> object:
    if node.value in ("||", "&&"):
        return _first(((side, names) for side in node.children), decides=node.value == "||")
    left, right = (_value(child, names) for child in node.children)
    return _OPERATORS[str(node.value)](left, right)


def _equal(left: object, right: object) -> bool:
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    return left == right


def _in(left: object, right: object) -> bool:
    if isinstance(right, Mapping):
        return right.get(left) is not None
    if not isinstance(right, list):
        raise Undecided(f"{type(right).__name__} is no list")
    return any(_equal(left, item) for item in right)


def _add(left: object, right: object) -> object:
    return left + right if isinstance(left, str) and isinstance(right, str) else _number(left) + _number(right)


def _remainder(left: object, right: object) -> object:
    """Of whole numbers above zero, where CEL and Python agree."""
    dividend, divisor = _number(left), _number(right)
    if dividend < 0 or divisor <= 0:
        raise Undecided("a remainder is of whole numbers above zero")
    return dividend % divisor


def _choice(node: Node, names: _Names) -> object:
    condition, then, other = node.children
    return _value(then if _value(condition, names) is True else other, names)


_OPERATORS: Final[dict[str, Callable[[object, object], object]]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": lambda left, right: _number(left) < _number(right),
    "<=": lambda left, right: _number(left) <= _number(right),
    ">": lambda left, right: _number(left) > _number(right),
    ">=": lambda left, right: _number(left) >= _number(right),
    "in": _in,
    "+": _add,
    "-": lambda left, right: _number(left) - _number(right),
    "*": lambda left, right: _number(left) * _number(right),
    "%": _remainder,
}
_KINDS: Final[dict[str, Callable[[Node, _Names], object]]] = {
    "literal": lambda node, _: node.value,
    "list": lambda node, names: [_value(child, names) for child in node.children],
    "name": _name,
    "select": _select,
    "optional": _optional,
    "index": _index,
    "call": _call,
    "macro": _macro,
    "unary": _unary,
    "binary": _binary,
    "choice": _choice,
}
