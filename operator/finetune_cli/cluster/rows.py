"""`finetune get`: a table with kubectl's own columns, which come from the kind's definition, as wide as there is room. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from finetune_api.kinds import FINE_TUNE_JOB, Column
from finetune_cli.cluster.words import age, one_line
from finetune_client.objects import Job, parse_time

NONE: Final = "-"
DROPPED_FIRST: Final = ("NAMESPACE", "SCORE", "ATTEMPTS", "NODE", "METHOD", "MODEL", "QUEUE", "AGE", "STAGE", "LOSS", "ETA", "PROGRESS")
"""The order in which columns give way on a narrow terminal. NAME and PHASE stay."""
GAP: Final = 2
SHORTEST_NAME: Final = 8


def table(jobs: Sequence[Job], *, now: datetime, wide: bool = False, namespaces: bool = False, width: int | None = None) -> str:
    """A line a job below a line of headings. width: columns of the terminal; None where nobody counts them."""
    columns = [column for column in FINE_TUNE_JOB.columns if wide or column.priority == 0]
    heads = [*(["NAMESPACE"] if namespaces else []), "NAME", *(column.name.upper() for column in columns)]
    rows = [[*([job.namespace] if namespaces else []), job.name, *(cell(job.manifest, column, now) for column in columns)] for job in jobs]
    lines = [dict(zip(heads, row, strict=True)) for row in rows]
    kept = _fitting(heads, lines, width)
    widths = {head: max(len(head), *(len(line[head]) for line in lines)) if lines else len(head) for head in kept}
    if width is not None and _total(widths) > width:
        widths["NAME"] = max(SHORTEST_NAME, widths["NAME"] - (_total(widths) - width))
    printed = [dict(zip(kept, kept, strict=True)), *lines]
    return "\n".join((" " * GAP).join(_cut(line[head], widths[head]).ljust(widths[head]) for head in kept).rstrip() for line in printed)


def cell(manifest: Mapping[str, Any], column: Column, now: datetime) -> str:
    """What a column shows of an object."""
    found = value_at(manifest, column.path)
    if found is None or found == "":
        return NONE
    if column.type == "date":
        return age(parse_time(found), now)
    if column.type == "integer":
        return f"{found}%" if column.path.endswith("percent") else str(found)
    if column.type == "number" and isinstance(found, int | float):
        return f"{found:.4g}"
    return one_line(str(found))


def value_at(manifest: Mapping[str, Any], path: str) -> Any:
    """The value at a simple JSONPath such as `.metadata.annotations.example\\.com/name`; None where there is none."""
    found: Any = manifest
    for part in re.findall(r"\.((?:\\.|[^.\\])+)", path):
        found = found.get(part.replace("\\", "")) if isinstance(found, Mapping) else None
    return found


def _fitting(heads: list[str], lines: list[dict[str, str]], width: int | None) -> list[str]:
    kept = list(heads)
    if width is None:
        return kept
    for head in DROPPED_FIRST:
        widths = {name: max(len(name), *(len(line[name]) for line in lines)) if lines else len(name) for name in kept}
        if _total(widths) <= width:
            break
        kept = [name for name in kept if name != head]
    return kept


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
