"""A document of mappings, lists and scalars as YAML that people can read. The API has no other dependency than pydantic, and this is enough."""

from __future__ import annotations

import json
import re
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z_.][A-Za-z0-9_./()-]*( [A-Za-z0-9_./()-]+)*")
_RESERVED: Final = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null", "~", ".inf", ".nan"})


def to_yaml(value: object, *, indent: int = 0) -> str:
    """Return a document in block style; every scalar that could be misread is quoted as JSON, which is YAML too."""
    return "\n".join(_lines(value, indent)) + "\n"


def _lines(value: object, indent: int) -> list[str]:
    pad = " " * indent
    lines: list[str] = []
    if isinstance(value, dict):
        for key, inner in value.items():
            if inner and isinstance(inner, dict | list):
                lines += [f"{pad}{_scalar(key)}:", *_lines(inner, indent + 2)]
            else:
                lines.append(f"{pad}{_scalar(key)}: {_scalar(inner)}")
    elif isinstance(value, list):
        for inner in value:
            first, *rest = _lines(inner, indent + 2) if inner and isinstance(inner, dict | list) else [" " * (indent + 2) + _scalar(inner)]
            lines += [f"{pad}- {first[indent + 2 :]}", *rest]
    else:
        lines.append(pad + _scalar(value))
    return lines


def _scalar(value: object) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False)
