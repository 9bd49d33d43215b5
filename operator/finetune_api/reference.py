"""The reference of a kind's fields as Markdown, generated from the same schema that the API server gets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from finetune_api.kinds import Kind
from finetune_api.schema import Schema, structural_schema


def reference(kind: Kind) -> str:
    """Return the page of a kind."""
    properties = structural_schema(kind)["properties"]
    parts = ("spec", "status") if kind.has_status else ("spec",)
    return kind.introduction + "".join(section for part in parts for section in _sections(part, properties[part], kind))


def _sections(path: str, node: Schema, kind: Kind) -> Iterator[str]:
    rows = [_row(name, inner, name in node.get("required", [])) for name, inner in node["properties"].items()]
    rules = list(_rules(path, kind))
    lines = [f"\n## {path}\n"]
    if node.get("description"):
        lines.append(_split(node["description"])[0] + "\n")
    lines += ["| field | type | default | meaning |", "| --- | --- | --- | --- |", *rows]
    if rules:
        lines += ["\nRefused:\n", *rules]
    yield "\n".join(lines) + "\n"
    for name, inner in node["properties"].items():
        below = inner.get("items", inner)
        if "properties" in below:
            suffix = "[]" if "items" in inner else ""
            described = {**below, "description": below.get("description") or inner.get("description", "")}
            yield from _sections(f"{path}.{name}{suffix}", described, kind)


def _rules(path: str, kind: Kind) -> Iterator[str]:
    """Yield a line for each thing that the rules of a node say, with the fields that they say it of."""
    fields: dict[str, list[str]] = {}
    for rule in kind.rules:
        if path in rule.scopes and not rule.warning:
            field = ".".join(part for part in (re.sub(r"\[[-+]1\]", "[]", rule.each), rule.field) if part) or "the whole"
            fields.setdefault(f"{rule.message}: {rule.instead}.", []).append(f"`{field}`")
    for words, names in fields.items():
        yield f"- {', '.join(dict.fromkeys(names))}: {words}"


def _row(name: str, node: Schema, required: bool) -> str:
    meaning, default = _split(node.get("description", ""))
    return f"| `{name}` | {_cell(_type(node))} | {'required' if required else _cell(default)} | {_cell(meaning)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _split(text: str) -> tuple[str, str]:
    """Return (meaning, default) of a description; what follows the default's sentence belongs to the meaning."""
    match = re.search(r"Default: (.*?)(?=(?:\.|;)? (?:Example: |Not )|\.? ?$|; not )", text)
    if match is None:
        return text, ""
    rest = (text[: match.start()].rstrip() + " " + text[match.end() :].lstrip(".; ")).strip()
    return rest, match.group(1)


def _type(node: dict[str, Any]) -> str:
    if "x-kubernetes-int-or-string" in node:
        return "quantity"
    kind = str(node.get("type", ""))
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"]).replace("\\|", "or")
    if kind == "array":
        return f"list of {_type(node['items'])}{_span(node.get('minItems'), node.get('maxItems'), 'entries')}"
    if kind == "string":
        return f"string{_span(node.get('minLength'), node.get('maxLength'), 'characters')}"
    if kind in ("integer", "number"):
        return kind + _bounds(node)
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}{_span(None, node.get('maxProperties'), 'entries')}"
    return kind


def _span(low: int | None, high: int | None, unit: str) -> str:
    if high is None:
        return ""
    return f", {low} to {high} {unit}" if low else f", at most {high} {unit}"


def _bounds(node: dict[str, Any]) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    words = []
    if low is not None:
        words.append(f"{'>' if node.get('exclusiveMinimum') else '≥'} {low:g}")
    if high is not None:
        words.append(f"{'<' if node.get('exclusiveMaximum') else '≤'} {high:,}".replace(",", " "))
    return f", {' and '.join(words)}" if words else ""
