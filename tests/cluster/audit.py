"""Who asked the API server for what: reads a cluster's audit log, and compares it with the rights that somebody was given.

Both sides are sets of Right. What was used but not given stands in the log as forbidden; what was given but never used is a right too many.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Right(NamedTuple):
    """One verb on one kind of resource; `resource` names a subresource after a slash."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{'.' + self.group if self.group else ''}"


@dataclass(frozen=True)
class Used:
    """What one user asked for: what was allowed, and what was refused for want of a right."""

    allowed: frozenset[Right]
    forbidden: frozenset[Right]
    requests: int


class LogRotatedError(RuntimeError):
    """The audit log begins anew in the middle of a test: what came before is in another file."""


def size(log: Path) -> int:
    """Where the log ends now: what `used` takes as its start."""
    return log.stat().st_size if log.exists() else 0


def used(log: Path, user: str, *, start: int = 0) -> Used:
    """Return what `user` asked for after the log's byte `start`. Discovery (paths without a resource) is left out.

    Raises:
        LogRotatedError: The log is shorter than `start`.
    """
    allowed: set[Right] = set()
    forbidden: set[Right] = set()
    requests = 0
    for event in events(log, start):
        reference = event.get("objectRef")
        if event["user"]["username"] != user or reference is None or "resource" not in reference:
            continue
        name = reference["resource"] + (f"/{reference['subresource']}" if reference.get("subresource") else "")
        right = Right(reference.get("apiGroup", ""), name, event["verb"])
        requests += event["stage"] == "ResponseComplete"
        decision = event.get("annotations", {}).get("authorization.k8s.io/decision")
        (allowed if decision == "allow" else forbidden).add(right)
    return Used(frozenset(allowed), frozenset(forbidden), requests)


def given(rules: Iterable[Mapping[str, list[str]]]) -> frozenset[Right]:
    """Return what RBAC rules give."""
    return frozenset(
        Right(group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def events(log: Path, start: int = 0) -> Iterator[dict[str, Any]]:
    """Yield what the log tells after its byte `start`. Raises LogRotatedError where the log is shorter than that."""
    if size(log) < start:
        raise LogRotatedError(f"{log} has {size(log)} bytes, and {start} had been there")
    with log.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            if line.endswith(b"\n"):  # the last line may still be on its way
                yield json.loads(line)
