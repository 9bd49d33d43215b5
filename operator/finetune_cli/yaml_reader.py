"""Manifests as kubectl reads them, with the line of every field.

PyYAML speaks YAML 1.1 and would read `2e-5` as a string, `1:30` as 90 and the second of two equal keys silently. Here scalars mean what
they mean to kubectl (goyaml.v2, then JSON), an integral float is an integer, and duplicate keys are refused. Pure: text in, documents out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

try:
    from yaml import CSafeLoader as _Base
except ImportError:  # PyYAML built without libyaml: the same results, slower
    from yaml import SafeLoader as _Base  # type: ignore[assignment]

MAX_NODES = 200_000
"""Of a document with its aliases written out: a few nested aliases can stand for billions of values."""
_TAG = "tag:yaml.org,2002:"
_INTEGRAL_BELOW = 1e21
"""Go writes floats below this without an exponent, so the API server takes an integral one for an integer."""
_BOOLEANS = ["y", "Y", "n", "N"] + [
    form for word in ("yes", "no", "true", "false", "on", "off") for form in (word, word.capitalize(), word.upper())
]


class _Loader(_Base):
    """Composes nodes only; scalars get the types that kubectl gives them."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_Loader.add_implicit_resolver(_TAG + "bool", re.compile("^(?:" + "|".join(_BOOLEANS) + ")$"), list("yYnNtTfFoO"))
_Loader.add_implicit_resolver(
    _TAG + "int", re.compile(r"^[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    _TAG + "float",
    re.compile(r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver(_TAG + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_TAG + "merge", re.compile(r"^<<$"), ["<"])


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with the text itself."""

    line: int | None
    path: str
    message: str
    hint: str = ""


@dataclass
class Document:
    """One YAML document: its value, and where each field stands."""

    value: object = None
    line: int = 1
    lines: dict[str, int] = field(default_factory=dict)
    """Path of a field (`spec.stages[0].name`) → its line, from 1."""
    plain: dict[str, str] = field(default_factory=dict)
    """Path → the text of a scalar without quotes that is no string to YAML."""
    faults: list[Fault] = field(default_factory=list)

    def line_of(self, path: str) -> int | None:
        """The line of a field, or of the nearest one above it that exists."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.line


def read(text: str) -> list[Document]:
    """Return every document that is not empty; a syntax error ends the list with a document that holds only the fault."""
    documents: list[Document] = []
    try:
        for node in _nodes(text):
            document = Document(line=node.start_mark.line + 1)
            if node.tag != _TAG + "null":
                document.value = _Builder(document).build(node, "", ())
                documents.append(document)
    except yaml.MarkedYAMLError as error:
        documents.append(Document(faults=[_syntax_fault(error, text)]))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = "a NUL byte" if error.character in (0, "\0") else "a control character"
        documents.append(Document(faults=[Fault(line, "", f"not YAML: {what} stands in the text", "Save the file as plain UTF-8 text.")]))
    except (_TooMuch, RecursionError):
        documents.append(Document(faults=[Fault(None, "", "too large or nested too deeply for a manifest", "Write aliases (*name) out.")]))
    return documents


def _nodes(text: str) -> Iterator[Node]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield node
    finally:
        loader.dispose()


def _syntax_fault(error: yaml.MarkedYAMLError, text: str) -> Fault:
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines() or [""]
    line = min(mark.line + 1, len(lines)) if mark else 1
    source = lines[line - 1]
    problem = error.problem or str(error)
    hint = ""
    if "\t" in source[: len(source) - len(source.lstrip())]:
        problem, hint = "a tab stands in the indentation", "Indent with spaces; YAML allows no tabs there."
    elif "mapping values are not allowed" in problem:
        hint = "Put a value that contains `: ` in quotes, and check the indentation."
    elif "alias" in problem:
        hint = "Put a value that starts with * or & in quotes."
    elif "could not find expected ':'" in problem or "did not find expected" in problem or problem.startswith("expected"):
        hint = "Check the indentation and the brackets of this line and of the one above it."
    return Fault(line, "", f"not YAML: {problem}", hint)


class _TooMuch(Exception):
    """The document, with its aliases written out, is larger than any manifest."""


class _Builder:
    """Turns nodes into values, and notes lines and faults in the document on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0

    def build(self, node: Node, path: str, above: tuple[int, ...]) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or id(node) in above:
            raise _TooMuch
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, MappingNode):
            return self._mapping(node, path, (*above, id(node)))
        if isinstance(node, SequenceNode):
            return [self.build(item, f"{path}[{index}]", (*above, id(node))) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: str, above: tuple[int, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self._fault(key_node, path, "a key must be a word", "Write `key: value`; braces at this place may need quotes.")
                continue
            if key_node.tag == _TAG + "merge":
                self._merge(value_node, path, above, merged)
                continue
            key = key_node.value
            here = f"{path}.{key}" if path else key
            if key in first_line:
                self._fault(
                    key_node, here, f"the key is there twice (first on line {first_line[key]})", "Keep one of them: only one can hold."
                )
                continue
            first_line[key] = line
            self._document.lines[here] = line
            result[key] = self.build(value_node, here, above)
        return {**merged, **result}

    def _merge(self, node: Node, path: str, above: tuple[int, ...], merged: dict[str, Any]) -> None:
        """`<<: *anchor`: what stands in the mapping itself wins, then the first of several anchors."""
        for source in node.value if isinstance(node, SequenceNode) else [node]:
            value = self.build(source, path, above)
            if isinstance(value, dict):
                merged.update({key: item for key, item in value.items() if key not in merged})
            else:
                self._fault(node, path, "`<<` takes a mapping, or a list of them")

    def _scalar(self, node: Node, path: str) -> Any:
        kind, text = node.tag.removeprefix(_TAG), node.value
        if kind == "str" or kind == "timestamp" or node.tag == "!":
            return text
        self._document.plain[path] = text
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return text.lower() in ("y", "yes", "true", "on")
            if kind == "int":
                return _integer(text)
            if kind == "float":
                return self._float(node, path, text)
        except ValueError:
            pass
        self._fault(node, path, f"{text!r} is no {node.tag.replace(_TAG, '!!')}", "Leave the tag out.")
        return None

    def _float(self, node: Node, path: str, text: str) -> float | int | None:
        value = float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        if not math.isfinite(value):
            self._fault(node, path, f"{text} is no number that JSON has", "Write a finite number.")
            return None
        return int(value) if value.is_integer() and abs(value) < _INTEGRAL_BELOW else value

    def _fault(self, node: Node, path: str, message: str, hint: str = "") -> None:
        self._document.faults.append(Fault(node.start_mark.line + 1, path, message, hint))


def _integer(text: str) -> int:
    """As Go's ParseInt with base 0: 0x, 0o, 0b, and a leading 0 for octal."""
    digits = text.replace("_", "")
    sign, digits = (-1, digits[1:]) if digits.startswith("-") else (1, digits.removeprefix("+"))
    octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    return sign * int(digits, 8 if octal else 0)
