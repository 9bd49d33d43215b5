"""The table of docs/how-to/gitops.md, and where a job stands in it: what Argo CD and kstatus have to say of each of its states."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from scripts.go import ROOT
from tests.gitops.judge import Judge
from tests.gitops.states import DELETED, EDITED, FAILED, GOES_ON, NEW, REFUSED, SUCCEEDED, SUSPENDED

PAGE: Final = ROOT / "docs/how-to/gitops.md"
ROWS: Final[dict[str, tuple[str, str]]] = {
    row: (argo, flux)
    for row, argo, flux in re.findall(
        r"^\| ([^|`]+?)(?: \([^|]*\))? \| `(\w+)` \| `(\w+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
}
"""Argo CD's health and kstatus' status, by the row of the table in the documentation."""


def row_of(manifest: dict[str, Any]) -> str:
    """Where a job stands in the table of the documentation, by its phase for people."""
    status = manifest.get("status") or {}
    if manifest["metadata"].get("deletionTimestamp"):
        return DELETED
    if "conditions" not in status:
        return NEW
    if status["observedGeneration"] != manifest["metadata"]["generation"]:
        return EDITED
    if any(each["type"] == "Accepted" and each["status"] == "False" for each in status["conditions"]):
        return REFUSED
    return {"Suspended": SUSPENDED, "Succeeded": SUCCEEDED, "Failed": FAILED}.get(status["phase"], GOES_ON)


def judged(judge: Judge, states: Iterable[dict[str, Any]]) -> list[str]:
    """The rows that a job went through, after both tools have said of each of its states what the table says."""
    rows: list[str] = []
    for manifest in states:
        row = row_of(manifest)
        verdicts = (judge.health(manifest)[0], judge.kstatus(manifest)[0])
        assert verdicts == ROWS[row], f"{row}: {verdicts}; {json.dumps(manifest['status'])[:4000]}"
        rows += [row] if rows[-1:] != [row] else []
    return rows
