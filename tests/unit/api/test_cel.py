"""The subset of CEL that the rules are written in, with the meaning that the specification gives it."""

from __future__ import annotations

import pytest

from finetune_api.cel import BROKEN, CelSyntaxError, Undecided, evaluate, parse, substitute

NAMES = {"self": {"a": 1, "list": [1, 2, 3], "text": "hub", "none": None, "deep": {"x": 1.5}, "empty": [], "bad": BROKEN}}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 == 3 && 'a' + 'b' == 'ab'", True),
        ("self.a == 1.0", True),
        ("true == 1", False),
        ("-self.a", -1),
        ("self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x > 2)", True),
        ("self.list.filter(x, x > 1)", [2, 3]),
        ("self.list.map(x, x - 1)", [0, 1, 2]),
        ("self.empty.all(x, false)", True),
        ("self.empty.exists(x, true)", False),
        ("self.list[size(self.list) - 1]", 3),
        ("size(self.text)", 3),
        ("has(self.a) && !has(self.none) && !has(self.absent)", True),
        ("self.?absent.?x.orValue('d')", "d"),
        ("self.?deep.?x.orValue(0.0)", 1.5),
        ("self.?none.hasValue()", False),
        ("self.text.startsWith('h') && self.text.endsWith('b') && self.text.contains('u') && self.text.matches('^h.b$')", True),
        ("self.a in [1, 2] ? 'yes' : 'no'", "yes"),
        ("self.text == 'it\\'s'", False),
        ("false && true || true", True),
        ("!(1 > 2) && 1 <= 1 && 2 >= 1 && 1 != 2", True),
    ],
)
def test_values(expression: str, value: object) -> None:
    assert evaluate(expression, NAMES) == value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("true || self.bad", True),
        ("self.bad || true", True),
        ("false && self.absent == 1", False),
        ("self.absent == 1 && false", False),
        ("[1, 2].exists(x, x == 2 || self.bad)", True),
        ("[1, 2].all(x, x == 2 && self.bad)", False),
    ],
)
def test_the_other_side_decides(expression: str, value: bool) -> None:
    assert evaluate(expression, NAMES) is value


@pytest.mark.parametrize(
    "expression",
    [
        "self.bad",
        "self.bad == 1",
        "has(self.bad)",
        "self.?bad.orValue(1)",
        "self.absent",
        "self.none == 1",
        "self.a.b",
        "true && self.bad",
        "[1].exists(x, self.bad)",
        "self.text > 1",
        "-self.text",
        "self.list[9]",
        "self.a.all(x, true)",
        "1 in self.a",
        "size(self.a)",
    ],
)
def test_undecided(expression: str) -> None:
    with pytest.raises(Undecided):
        evaluate(expression, NAMES)


@pytest.mark.parametrize("expression", ["", "1 +", "(1", "[1", "a.1", "a b", "a ? b", "'open", "a & b", "{}", "f(1,,2)", "a.all(x"])
def test_what_is_outside_the_subset_is_refused(expression: str) -> None:
    with pytest.raises(CelSyntaxError):
        parse(expression)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("it.it == 'it' && next.x", "a[i].it == 'it' && b.x"),
        ("has(it.x) || it.?it.orValue('say \\'it\\'')", "has(a[i].x) || a[i].?it.orValue('say \\'it\\'')"),
        ("item == it", "item == a[i]"),
    ],
)
def test_substitution_leaves_strings_and_fields_alone(expression: str, result: str) -> None:
    assert substitute(expression, {"it": "a[i]", "next": "b"}) == result
