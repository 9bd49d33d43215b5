"""How often a segment may start: the caps of `spec.retry`, counted from the journal, since the operator may be down. Pure.

Pods of one Job have one attempt number. So a second start under one number is a disruption (the Job replaced its pod), and a start under a
new number is the operator's: after a failure, or uncharged after a suspension. It never counts more than the operator would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_trainer.checkpoint.journal import Event


@dataclass(frozen=True)
class Starts:
    """What became of the processes of one segment."""

    disruptions: int
    failures: tuple[Mapping[str, Any], ...]
    """The ends (`reason`, `exitCode`, `message`) of the attempts that failed, oldest first."""


def starts(events: Sequence[Mapping[str, Any]], *, segment: int, command: str) -> Starts:
    """Count the processes that began a command of a segment, the running one among them."""
    mine = [event for event in events if (event.get("segment"), event.get("command")) == (segment, command)]
    begun = Counter(event.get("attempt") for event in mine if event["event"] == Event.PROCESS)
    failed = {event.get("attempt"): event for event in mine if event["event"] == Event.END and event.get("outcome") == "Failed"}
    return Starts(disruptions=sum(count - 1 for count in begun.values()), failures=tuple(failed.values()))
