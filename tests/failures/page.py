"""docs/reference/failures-tried.md: the whole set as a table, with what was followed of each hint."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from scripts.demo_assets import ROOT
from tests.failures.base import Failure, Layer, Level
from tests.failures.choice import MOST

PAGE: Final[Path] = ROOT / "docs/reference/failures-tried.md"
_LEVELS: Final = {
    Level.VALIDATE: "`finetune validate`, then a plan of the mended manifest",
    Level.RUN: "`finetune run` with the real trainer and a tiny model",
    Level.CLUSTER: "a real API server, scheduler, controllers and operator; a test plays the kubelet",
    Level.POD: f"real nodes, and the real images of operator and trainer: `make test` takes {MOST} of them at most, others each time (`FINETUNE_FAILURES=SEED`, as its header has it, takes the same again)",
}
_HEAD: Final = """\
# Failures that are tried

What can go wrong, layer by layer, seeded on purpose and run for real. A test expects of each the reason, the words that name the place, and the
hint; then it does what the hint says, and the job must pass. {count} failures; {passed} of them end so ({share:.0%}). `make failures` tries all
of them, and writes this page. [Why a job failed](failures.md) has a section on each reason.

| tried on | what that is | failures |
| --- | --- | --- |
{levels}
"""
_ROW: Final = "| {what} | {reason} | `{place}` | {hint} | {fix} | {level} |"


def page(failures: Collection[Failure], fallen: Collection[str] = ()) -> str:
    """Return the page; `fallen` are the names of those that did not end well."""
    levels = "\n".join(f"| {level} | {what} | {sum(each.level is level for each in failures)} |" for level, what in _LEVELS.items())
    passed = len(failures) - len(fallen)
    parts = [_HEAD.format(count=len(failures), passed=passed, share=passed / len(failures), levels=levels)]
    for layer in Layer:
        found = [each for each in failures if each.layer is layer]
        parts.append(f"## {layer.capitalize()} ({len(found)})\n")
        parts.append("| what is wrong | reason | named | the hint says | done about it | tried on |\n| --- | --- | --- | --- | --- | --- |")
        parts += [_row(each, each.name in fallen) for each in found]
        parts.append("")
    return "\n".join(parts)


def _row(failure: Failure, fell: bool) -> str:
    cells = {
        "what": failure.what,
        "reason": _linked(failure.reason),
        "place": failure.place.strip(),
        "hint": failure.hint,
        "fix": f"{failure.fix}, in vain" if fell else failure.fix,
        "level": str(failure.level),
    }
    return _ROW.format(**{name: text.replace("|", "\\|") for name, text in cells.items()})


def _linked(reason: str) -> str:
    from finetune_api.constants import ClusterReason, Reason

    where = "failures.md" if reason in {*Reason, *ClusterReason} else "conditions.md"
    return f"[{reason}]({where}#{reason.lower()})" if where == "failures.md" else f"[{reason}]({where}#reasons)"
