"""What a cross-field rule is: one expression, spoken to the API server as CEL in the schema and to Python by the same text.

A rule is scoped to a node of the manifest, which the expression calls `self`. Where it speaks of each entry of a list, `each` names the list
and the expression calls the entry `it`: the API server gets one rule over the list, Python the index of every entry that breaks it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from finetune_api.cel import BROKEN, Undecided, evaluate, substitute
from finetune_api.constants import MAX_ENVIRONMENT, MAX_GATES, MAX_GUARDS, MAX_METRICS, MAX_SOURCES, MAX_STAGES, MAX_SUITES

POSITIONS: Final = "[" + ", ".join(str(index) for index in range(MAX_STAGES)) + "]"
"""The positions that a stage can have, for expressions that need a stage's number: CEL's `all` and `exists` give none."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition that holds in every valid manifest."""

    scopes: tuple[str, ...]
    """Nodes that the rule is attached to: `spec`, `spec.stages[]`, …"""
    holds: str
    """The expression, in CEL, over `self`, and over `it` (and `next`, `oldSelf`) where `each` says so."""
    message: str
    """What is wrong."""
    instead: str
    """What to write instead."""
    each: str = ""
    """What `it` is, from `self`: `gates[]` each entry, `stages[-1]` the last, `stages[+1]` each but the last, with the one after it as `next`."""
    field: str = ""
    """The field to blame, from `it` (from `self` where there is no `each`)."""
    offenders: str = ""
    """An expression over the same names: what breaks the rule, where it isn't the value of `field`. The message begins with the first."""
    choices: str = ""
    """An expression over the same names: what could have been written. Python names the nearest."""
    transition: bool = False
    """Whether it compares with the object before the change, `oldSelf`."""
    unnamed: bool = False
    """Leave the entry's name out of the API server's message: naming it repeats the expression, and this one is long."""
    warning: bool = False
    """Unusual rather than wrong: said by `finetune validate`, never by the API server."""


@dataclass(frozen=True)
class Unique:
    """Entries of a list that may not be equal (in their `key`); the schema says it by its list type."""

    path: str
    key: str | None = None


@dataclass(frozen=True)
class Violation:
    """A rule that is broken, and where."""

    path: str
    message: str
    instead: str
    warning: bool = False
    found: object = None
    choices: tuple[str, ...] = ()


def nodes(value: object, pattern: str, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield (path, value) of what a pattern such as `spec.stages[].data` matches and is there."""
    if value is None or value is BROKEN:
        return
    if not pattern:
        yield path, value
        return
    head, _, rest = pattern.partition(".")
    name = head.removesuffix("[]")
    if not isinstance(value, dict):
        return
    inner, where = value.get(name), f"{path}.{name}" if path else name
    if head == name:
        yield from nodes(inner, rest, where)
    elif isinstance(inner, list):
        for index, item in enumerate(inner):
            yield from nodes(item, rest, f"{where}[{index}]")


def violations(rule: Rule, document: dict[str, object], old: dict[str, object] | None = None) -> Iterator[Violation]:
    """Yield where a manifest breaks a rule. What depends on a broken value is not said."""
    for scope in rule.scopes:
        before = dict(nodes(old, scope)) if old is not None else {}
        for path, node in nodes(document, scope):
            if rule.transition and path not in before:
                continue
            names = {"self": node} | ({"oldSelf": before[path]} if rule.transition else {})
            for where, more in _each(rule.each, node, path):
                if not _holds(rule.holds, names | more):
                    blamed = f"{where}.{rule.field}" if rule.field else where
                    found = _texts(rule.offenders, names | more) or [value for _, value in nodes(more.get("it", node), rule.field)]
                    choices = _texts(rule.choices, names | more)
                    yield Violation(blamed, rule.message, rule.instead, rule.warning, found[0] if found else None, choices)


def _each(each: str, node: object, path: str) -> Iterator[tuple[str, dict[str, object]]]:
    if not each:
        yield path, {}
        return
    name, _, which = each.partition("[")
    if which not in ("-1]", "+1]"):
        yield from ((where, {"it": item}) for where, item in nodes(node, each, path))
        return
    items = node.get(name) if isinstance(node, dict) else None
    if not isinstance(items, list):
        return
    if which == "-1]":
        yield from ((f"{path}.{name}[{len(items) - 1}]", {"it": item}) for item in items[-1:])
    else:
        pairs = enumerate(itertools.pairwise(items))
        yield from ((f"{path}.{name}[{index}]", {"it": item, "next": after}) for index, (item, after) in pairs)


def _holds(expression: str, names: dict[str, object]) -> bool:
    try:
        return evaluate(expression, names) is True
    except Undecided:
        return True


def _texts(expression: str, names: dict[str, object]) -> tuple[str, ...]:
    try:
        found = evaluate(expression, names) if expression else []
    except Undecided:
        return ()
    return tuple(str(choice) for choice in found) if isinstance(found, list) else ()


def to_cel(rule: Rule) -> dict[str, str]:
    """Return the rule as an entry of `x-kubernetes-validations`.

    The API server's path ends at a list, so that of a rule over its entries the message names the entry.
    """
    words = f"{rule.message}: {rule.instead}"
    if not rule.each:
        named = {"messageExpression": f"{rule.offenders}[0] + {_quoted(f': {words}')}"} if rule.offenders else {}
        return {"rule": rule.holds, "message": words} | ({"fieldPath": f".{rule.field}"} if rule.field else {}) | named
    expression, offender = _over(rule.each, rule.holds)
    blamed = rule.each.partition("[")[0]
    if rule.field and "[" not in rule.each:
        blamed += f".{rule.field}"
    entry = {"rule": expression, "message": words, "fieldPath": f".{blamed}"}
    return entry | ({"messageExpression": f"{offender} + {_quoted(f': {words}')}"} if offender and not rule.unnamed else {})


_SUBJECTS: Final = {
    "stages": (MAX_STAGES, "'stage ' + {0}.name"),
    "suites": (MAX_SUITES, "'suite ' + {0}.name"),
    "gates": (MAX_GATES, "'gate on ' + {0}.suite + ' ' + {0}.metric"),
    "regularization": (MAX_GUARDS, "'guard ' + {0}.type"),
    "train": (MAX_SOURCES, "{0}.uri"),
    "metrics": (MAX_METRICS, "{0}"),
    "env": (MAX_ENVIRONMENT, "'variable ' + {0}.name"),
}
"""The longest that a list may be, and how a message names an entry of it."""


def _first(path: str, broken: str) -> str:
    """Write the name of the first entry for which `broken` holds, which calls it `entry`.

    By its position, since the cost estimate knows the length of a string in `list[n]`, and none of one in `list.filter(…)[0]`.
    """
    length, subject = _SUBJECTS[path.rpartition(".")[2]]
    positions = "[" + ", ".join(str(index) for index in range(length)) + "]"
    condition = substitute(broken, {"entry": f"{path}[n]", "next": f"{path}[n + 1]"})
    return subject.format(f"{path}[{positions}.filter(n, {condition})[0]]")


def either(value: str, choices: Iterable[str]) -> str:
    """Write that a value is one of some strings."""
    return f"{value} in [{', '.join(map(_quoted, choices))}]"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _over(each: str, holds: str) -> tuple[str, str]:
    """Return the expression over what `each` names, and one that names the first entry that breaks it."""
    name, _, which = each.partition("[")
    path = f"self.{name}"
    if which == "-1]":
        last = f"{path}[size({path}) - 1]"
        return substitute(holds, {"it": last}), _SUBJECTS[name][1].format(last)
    if which == "+1]":
        body = substitute(holds, {"it": f"{path}[i]", "next": f"{path}[i + 1]"})
        # The API server asks all rules again at every write of the status: most jobs have one stage, and shall not pay for sixteen.
        return f"size({path}) < 2 || {POSITIONS}.all(i, i + 1 >= size({path}) || ({body}))", _first(
            path, f"n + 1 < size({path}) && !({substitute(holds, {'it': 'entry'})})"
        )
    expression = _nested("self", each.split("."), holds)
    lists, found, rest = each.partition("[]")
    if not found:
        return expression, ""
    inner = _nested("entry", rest.removeprefix(".").split("."), holds) if rest else substitute(holds, {"it": "entry"})
    return expression, _first(f"self.{lists}", f"n < size(self.{lists}) && !({inner})")


def _variable(path: str, has_more: bool) -> str:
    """Return the name of a list's entry: `it` for the innermost list."""
    return f"{path.rpartition('.')[2].removesuffix('s[]')}Item" if has_more else "it"


def _nested(owner: str, parts: list[str], holds: str) -> str:
    """Write `holds` for everything that a path reaches from `owner`; what is absent breaks nothing."""
    if not parts:
        return f"({substitute(holds, {'it': owner})})"
    name, *rest = parts
    path = f"{owner}.{name.removesuffix('[]')}"
    if not name.endswith("[]"):
        return f"!has({path}) || {_nested(path, rest, holds)}"
    variable = _variable(name, bool(rest))
    return f"!has({path}) || {path}.all({variable}, {_nested(variable, rest, holds)})"
