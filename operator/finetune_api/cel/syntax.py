"""Text of an expression → a tree. Follows the grammar of https://github.com/google/cel-spec, without maps, messages, bytes and arithmetic
other than +, - and %, which no rule needs. What is outside the subset is an error here, never a different meaning."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TOKEN: Final = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<string>'(?:[^'\\]|\\.)*')|(?P<name>[A-Za-z_]\w*)|(?P<operator>\|\||&&|==|!=|<=|>=|\.\?|[-+*%<>!?:.,()\[\]]))"""
)
MACROS: Final = frozenset({"all", "exists", "exists_one", "filter", "map"})
BINARY: Final[tuple[frozenset[str], ...]] = (
    frozenset({"||"}),
    frozenset({"&&"}),
    frozenset({"==", "!=", "<", "<=", ">", ">=", "in"}),
    frozenset({"+", "-"}),
    frozenset({"*", "%"}),
)
"""Operators from the loosest to the tightest."""


class CelSyntaxError(ValueError):
    """The expression is not in the subset. A fault of a rule, never of a manifest."""


@dataclass(frozen=True)
class Node:
    """`kind` says what `value` and `children` are: literal, list, name, select, optional, index, call, macro, unary, binary, choice."""

    kind: str
    value: object
    children: tuple[Node, ...] = ()


def tokens(text: str) -> list[tuple[str, str]]:
    """Return (kind, text) of each token; raise CelSyntaxError where none fits."""
    found: list[tuple[str, str]] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise CelSyntaxError(f"no token at {text[position : position + 20]!r} of {text!r}")
        found.append((match.lastgroup, match.group(match.lastgroup)))
        position = match.end()
    return found


def substitute(text: str, names: Mapping[str, str]) -> str:
    """Replace free identifiers by other expressions: never inside a string, nor a field's name after a dot."""

    def replace(match: re.Match[str]) -> str:
        word = match.group(0)
        return names.get(word, word)

    pieces = re.split(r"('(?:[^'\\]|\\.)*')", text)
    pieces[::2] = [re.sub(r"(?<![\w.?])[A-Za-z_]\w*", replace, piece) for piece in pieces[::2]]
    return "".join(pieces)


@functools.cache
def parse(text: str) -> Node:
    """Return the tree of an expression; raise CelSyntaxError."""
    parser = _Parser(tokens(text), text)
    node = parser.choice()
    parser.expect_end()
    return node


class _Parser:
    def __init__(self, found: list[tuple[str, str]], text: str) -> None:
        self.found, self.text, self.position = found, text, 0

    def peek(self) -> str:
        return self.found[self.position][1] if self.position < len(self.found) else ""

    def kind(self) -> str:
        return self.found[self.position][0] if self.position < len(self.found) else "end"

    def take(self) -> str:
        text = self.peek()
        self.position += 1
        return text

    def expect(self, text: str) -> None:
        if self.peek() != text or self.kind() == "string":
            raise CelSyntaxError(f"{text!r} expected instead of {self.peek()!r} in {self.text!r}")
        self.position += 1

    def expect_end(self) -> None:
        if self.kind() != "end":
            raise CelSyntaxError(f"{self.peek()!r} is left over in {self.text!r}")

    def choice(self) -> Node:
        condition = self.binary(0)
        if self.peek() != "?":
            return condition
        self.expect("?")
        then = self.binary(0)
        self.expect(":")
        return Node("choice", None, (condition, then, self.choice()))

    def binary(self, level: int) -> Node:
        if level == len(BINARY):
            return self.unary()
        left = self.binary(level + 1)
        while self.kind() != "string" and self.peek() in BINARY[level]:
            operator = self.take()
            left = Node("binary", operator, (left, self.binary(level + 1)))
        return left

    def unary(self) -> Node:
        if self.kind() == "operator" and self.peek() in ("!", "-"):
            return Node("unary", self.take(), (self.unary(),))
        return self.member()

    def member(self) -> Node:
        node = self.primary()
        while self.kind() == "operator" and self.peek() in (".", ".?", "["):
            operator = self.take()
            if operator == "[":
                node = Node("index", None, (node, self.choice()))
                self.expect("]")
                continue
            if self.kind() != "name":
                raise CelSyntaxError(f"a field's name expected instead of {self.peek()!r} in {self.text!r}")
            name = self.take()
            if operator == ".?":
                node = Node("optional", name, (node,))
            elif self.peek() == "(":
                kind = "macro" if name in MACROS else "call"
                node = Node(kind, name, (node, *self.arguments(")")))
            else:
                node = Node("select", name, (node,))
        return node

    def arguments(self, end: str) -> list[Node]:
        self.take()
        found: list[Node] = []
        while self.peek() != end:
            found.append(self.choice())
            if self.peek() != end:
                self.expect(",")
        self.expect(end)
        return found

    def primary(self) -> Node:
        kind, text = self.kind(), self.peek()
        if text == "(" and kind == "operator":
            self.take()
            node = self.choice()
            self.expect(")")
            return node
        if text == "[" and kind == "operator":
            return Node("list", None, tuple(self.arguments("]")))
        self.take()
        if kind == "number":
            return Node("literal", float(text) if re.search(r"[.eE]", text) else int(text))
        if kind == "string":
            return Node("literal", re.sub(r"\\(.)", r"\1", text[1:-1]))
        if kind == "name":
            if text in ("true", "false"):
                return Node("literal", text == "true")
            return Node("call", text, tuple(self.arguments(")"))) if self.peek() == "(" else Node("name", text)
        raise CelSyntaxError(f"{text or 'the end'!r} is not expected in {self.text!r}")
