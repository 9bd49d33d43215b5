"""`finetune validate`: every problem of every file at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

from finetune_api.constants import ExitCode
from finetune_cli.manifests import STDIN, Checked, Finding, check, same_names
from finetune_cli.terminal import Paint

_STYLES = {"error": "red", "warning": "yellow", "note": "blue"}


def check_all(sources: Sequence[str], stdin: BinaryIO) -> list[Checked]:
    """Check every source; a job's name that occurs twice is a finding of the later file."""
    checked = [check(source, stdin) for source in sources]
    doubles = same_names(checked)
    return [replace(one, findings=[*one.findings, *(finding for finding in doubles if finding.source == one.source)]) for one in checked]


def exit_code(checked: Sequence[Checked]) -> int:
    return ExitCode.BAD_CONFIG if any(one.errors for one in checked) else ExitCode.SUCCESS


def as_text(checked: Sequence[Checked], paint: Paint) -> str:
    """A line a finding, as compilers write them (editors can jump to them), its hint below, and a last line for each file."""
    lines: list[str] = []
    for one in checked:
        lines += [render(finding, paint) for finding in one.findings]
        lines.append(_verdict(one, paint))
    return "\n".join(lines)


def as_json(checked: Sequence[Checked]) -> str:
    """For programs: `[{file, valid, jobs, runtimes, problems}]`."""
    documents = [
        {
            "file": one.source,
            "valid": not one.errors,
            "jobs": [job.metadata.name for job in one.jobs],
            "runtimes": [runtime.metadata.name for runtime in one.runtimes],
            "problems": [finding.as_json() for finding in one.findings],
        }
        for one in checked
    ]
    return json.dumps(documents, indent=2, ensure_ascii=False)


def render(finding: Finding, paint: Paint) -> str:
    """`job.yaml:12: error: spec.stages[0].metod: unknown field`, and the hint on a line of its own."""
    where = ":".join([_shown(finding.source), *([str(finding.line)] if finding.line else [])])
    parts = [where, paint(finding.severity, _STYLES[finding.severity]), *([paint(finding.path, "bold")] if finding.path else [])]
    line = ": ".join([*parts, finding.message])
    return f"{line}\n    {paint('→', 'dim')} {finding.hint[:1].upper()}{finding.hint[1:]}" if finding.hint else line


def _verdict(one: Checked, paint: Paint) -> str:
    warnings = sum(finding.severity == "warning" for finding in one.findings)
    counts = ", ".join(_count(number, word) for number, word in ((one.errors, "error"), (warnings, "warning")) if number)
    if one.errors:
        return f"{_shown(one.source)}: {paint('not valid', 'red')} ({counts})"
    parts = [f"{job.metadata.name}: {_count(len(job.spec.stages), 'stage')}" for job in one.jobs]
    names = ", ".join([*parts, *(f"{runtime.metadata.name}: runtime" for runtime in one.runtimes)])
    return f"{_shown(one.source)}: {paint('valid', 'green')} ({names}{f'; {counts}' if counts else ''})"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _shown(source: str) -> str:
    return "standard input" if source == STDIN else source
