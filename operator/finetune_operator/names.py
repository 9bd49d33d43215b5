"""Names of what the operator makes: deterministic, so that whoever makes an object twice meets himself.

A name holds what an object is, because nobody can change it; labels say the same to people, and anybody can change those.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from finetune_operator.model import Manifest

REPORT = "report"
"""The segment word of the Job that reads a long result."""
READ = "read"
"""The segment word of a Job that reads what a user asked for."""
_READER = re.compile(rf"ft-.+-[0-9a-f]{{8}}-{READ}-[0-9a-f]{{8}}(-[a-z0-9]+)?")


class JobName(NamedTuple):
    """What the name of a batch Job says."""

    segment: int | None
    """Index of the segment; None for the report."""
    number: int
    """Counted from 1 in each segment."""


def prefix(name: str, uid: str) -> str:
    """Begin the names of a FineTuneJob's children: at most 42 characters, so that a Job's name stays below 63."""
    return f"ft-{name[:30]}-{uid[:8]}"


def claim_name(job: Manifest) -> str:
    """Name the claim that is made for a job's run folder."""
    return prefix(job["metadata"]["name"], job["metadata"]["uid"])


def job_name(name: str, uid: str, segment: int | None, number: int) -> str:
    """Name a batch Job: segment and number, `report` for the segment None."""
    return f"{prefix(name, uid)}-{REPORT if segment is None else segment}-{number}"


def parse_job_name(text: str, name: str, uid: str) -> JobName | None:
    """Return what a batch Job's name says, or None where it is no name of this FineTuneJob's children."""
    found = re.fullmatch(re.escape(prefix(name, uid)) + rf"-(\d+|{REPORT})-([1-9]\d*)", text)
    return JobName(None if found[1] == REPORT else int(found[1]), int(found[2])) if found else None


def read_job_name(name: str, uid: str, request: str) -> str:
    """Name the Job that serves a request, by the request's id: whoever serves it twice meets himself."""
    return f"{prefix(name, uid)}-{READ}-{request}"


def is_reader(text: str) -> bool:
    """Whether this is the name of a reading Job or of its pod. No Job of a segment, and no pod of one, can have such a name."""
    return _READER.fullmatch(text) is not None


def run_folder(namespace: str, name: str, uid: str) -> str:
    """Return the run folder below the root of the run storage: no two jobs ever share one."""
    return f"{namespace}/{name}-{uid}"
