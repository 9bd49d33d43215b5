"""Counts writes from a cluster's audit log: every request that would change something, also one that was refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.cluster import audit
from tests.cluster.api import Object

VERBS: Final = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def writes(log: Path, start: int, namespace: str, *, user: str | None = None, about: Callable[[str], bool] = bool) -> Counter[str]:
    """Return how often what was written in a namespace after the log's byte `start`, Events apart.

    user: of whom (default: of everybody). about: which names of objects count (default: all).
    """
    found: Counter[str] = Counter()
    for event in audit.events(log, start):
        target = event.get("objectRef") or {}
        here = _is_write(event) and target.get("namespace") == namespace and user in (None, event["user"]["username"])
        if here and target["resource"] != "events" and about(target.get("name", "?")):
            found[f"{event['verb']} {_what(target)}"] += 1
    return found


def lists(log: Path, start: int, user: str, resource: str) -> int:
    """Return how often somebody listed a resource from its beginning after the log's byte `start`."""
    return sum(
        event["user"]["username"] == user
        and event["verb"] == "list"
        and (event.get("objectRef") or {}).get("resource") == resource
        and "continue=" not in event["requestURI"]
        for event in audit.events(log, start)
    )


def told(counted: Counter[str], jobs: int) -> str:
    """Return them by the job, the most frequent first: `2.00 update finetunejobs/status, 1.00 create jobs`."""
    return ", ".join(f"{count / jobs:.2f} {what}" for what, count in counted.most_common()) or "none"


def _is_write(event: Object) -> bool:
    return event["verb"] in VERBS and event["stage"] == "ResponseComplete"


def _what(target: Object) -> str:
    return "/".join(part for part in (target["resource"], target.get("subresource")) if part)
