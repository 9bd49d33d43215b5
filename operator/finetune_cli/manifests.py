"""From files to checked jobs: which documents are of our kinds, and everything that is wrong with them, with its line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from finetune_api.constants import GROUP, KIND, RUNTIME_KIND

if TYPE_CHECKING:
    from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
    from finetune_api.v1alpha1.runtime import ClusterFineTuneRuntime
    from finetune_api.validation import Problem
    from finetune_cli.yaml_reader import Document

STDIN = "-"
MAX_BYTES = 1024 * 1024
"""A manifest larger than this fits into no cluster either (etcd takes 1.5 MiB); it is most likely a data file."""

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing to tell about a file."""

    source: str
    line: int | None
    severity: Severity
    path: str
    message: str
    hint: str = ""

    def as_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}


@dataclass(frozen=True)
class Checked:
    """What a file came to: the jobs and runtimes without errors, and what was found."""

    source: str
    jobs: list[FineTuneJob]
    findings: list[Finding]
    runtimes: list[ClusterFineTuneRuntime] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)


def check(source: str, stdin: BinaryIO) -> Checked:
    """Read a file (or standard input, `-`) and check every FineTuneJob and ClusterFineTuneRuntime in it."""
    text = _text(source, stdin)
    return Checked(source, [], [text]) if isinstance(text, Finding) else check_text(source, text)


def check_text(source: str, text: str) -> Checked:
    """The same for a text that is there already. Pure."""
    from finetune_cli.yaml_reader import read

    jobs: list[FineTuneJob] = []
    runtimes: list[ClusterFineTuneRuntime] = []
    findings: list[Finding] = []
    others: list[str] = []
    documents = read(text)
    for document in documents:
        if document.faults:
            findings += [Finding(source, fault.line, "error", fault.path, fault.message, fault.hint) for fault in document.faults]
        if document.value is None:
            continue
        other = _other_kind(document.value)
        if other is not None:
            others.append(other)
            findings.append(Finding(source, document.line, "note", "", f"skipped: {other}, not a {KIND}"))
            continue
        job, runtime, problems = _validate(document.value)
        findings += [_finding(source, document, problem) for problem in problems]
        if not document.faults:
            jobs += [job] if job is not None else []
            runtimes += [runtime] if runtime is not None else []
    if not documents:
        findings.append(Finding(source, None, "error", "", "nothing in it", f"Write a manifest of kind {KIND}."))
    elif len(others) == len(documents):
        findings.append(Finding(source, None, "error", "", f"no {KIND} in it (found: {', '.join(sorted(set(others)))})"))
    return Checked(source, jobs, sorted(findings, key=lambda finding: (finding.line is None, finding.line or 0)), runtimes)


def same_names(checked: Iterable[Checked]) -> list[Finding]:
    """Warn of jobs that would overwrite each other in a cluster."""
    first: dict[tuple[str, str], str] = {}
    findings = []
    for one in checked:
        for job in one.jobs:
            key = (job.metadata.namespace or "", job.metadata.name)
            if key in first:
                message = f"{job.metadata.name} is the name of a job in {first[key]} too"
                findings.append(
                    Finding(one.source, None, "warning", "metadata.name", message, "Applied to one namespace, they are one job.")
                )
            first.setdefault(key, one.source)
    return findings


def _text(source: str, stdin: BinaryIO) -> str | Finding:
    def error(message: str, hint: str = "") -> Finding:
        return Finding(source, None, "error", "", message, hint)

    path = Path(source)
    try:
        data = stdin.read(MAX_BYTES + 1) if source == STDIN else _head(path)
    except FileNotFoundError:
        near = _near(path)
        return error("there is no such file", f"Did you mean {near}?" if near else "Check the path; it is relative to the current folder.")
    except IsADirectoryError:
        return error("is a folder", f"Name the files in it, for instance {path / '*.yaml'}.")
    except PermissionError:
        return error("may not be read by this user", "Check the file's permissions.")
    except OSError as problem:
        return error(f"can't be read: {problem.strerror or problem}")
    if len(data) > MAX_BYTES:
        return error("is larger than 1 MiB, so it is no manifest", "Name the manifest, not the data; data is named in it by URI.")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return error("is UTF-16", "Save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        return Finding(source, line, "error", "", "is not UTF-8 text", "Save it as UTF-8.")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _near(path: Path) -> str | None:
    """A file beside it whose name differs a little: job.yml for job.yaml."""
    import difflib

    try:
        names = [item.name for item in path.parent.iterdir() if item.is_file()]
    except OSError:
        return None
    matches = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return str(path.parent / matches[0]) if matches else None


def _other_kind(value: object) -> str | None:
    """The kind of a document that is of another API group, such as a ConfigMap in the same file."""
    if not isinstance(value, dict):
        return None
    kind, version = value.get("kind"), value.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str):
        return None
    return None if kind.lower() == KIND.lower() or version.split("/")[0] == GROUP else kind


def _validate(value: object) -> tuple[FineTuneJob | None, ClusterFineTuneRuntime | None, list[Problem]]:
    """The job or the runtime, None where there is an error, and every problem. What is neither is judged as what its kind is like."""
    from finetune_api.problem import nearest
    from finetune_api.validation import validate, validate_runtime

    if isinstance(value, dict) and nearest(str(value.get("kind")), (KIND, RUNTIME_KIND)) == RUNTIME_KIND:
        runtime, problems = validate_runtime(value)
        return None, runtime, problems
    job, problems = validate(value)
    return job, None, problems


def _finding(source: str, document: Document, problem: Problem) -> Finding:
    hint = problem.hint
    text = document.plain.get(problem.path)
    if text and problem.message.startswith("a text is needed"):
        hint = f'YAML does not read {text} as text: write "{text}" in quotes.'
    severity: Severity = "warning" if problem.severity == "warning" else "error"
    return Finding(source, document.line_of(problem.path), severity, problem.path, problem.message, hint)
