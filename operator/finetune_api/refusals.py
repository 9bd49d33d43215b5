"""Why a run folder is refused, in the words that the command line and the trainer share: who uses it, or what differs. Pure."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

_SHOWN: Final = 8
_LONGEST: Final = 60
_ABSENT: Final = object()
_FREE: Final = (
    "runtimeRef",
    "references",
    "retry",
    "suspend",
    "activeDeadlineSeconds",
    "ttlSecondsAfterFinished",
    "output.uri",
    "output.retain",
)
_FREE_IN_STAGE: Final = ("resources", "checkpoint")


def another_run(recorded: Mapping[str, Any], job: str, spec: Mapping[str, Any]) -> str:
    """Return whose run a folder holds (`recorded` is its run.json), and in which fields that one differs from this job."""
    if recorded["job"] != job:
        return f"this folder holds the run of job {recorded['job']!r}, not of {job!r}"
    return f"this folder holds a run of another manifest of job {job!r}: {_listed(recorded['spec'], spec)}"


def holder(lock: bytes) -> str:
    """Return who holds a run folder, as far as its lock file says (it may just be being written)."""
    try:
        document = json.loads(lock)
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(document["since"]))
        return f": process {document['pid']} on {document['host']}, since {since}"
    except (ValueError, KeyError, TypeError):
        return ""


def _listed(recorded: Any, wanted: Any) -> str:
    found = [line for path, line in _differences(recorded, wanted, "spec") if not _free(path)]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (
        "; ".join(found[:_SHOWN]) + more if found else "it was made by another version of this program (the hashes differ, no field does)"
    )


def _free(path: str) -> bool:
    """Fields that may change within a run: they don't decide the result."""
    inner = path.removeprefix("spec.")
    in_stage = inner.startswith("stages[") and inner.partition("].")[2].startswith(_FREE_IN_STAGE)
    return inner.startswith(_FREE) or in_stage


def _differences(recorded: Any, wanted: Any, path: str) -> Iterator[tuple[str, str]]:
    """Path and sentence of each field in which two documents differ."""
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        for key in sorted({*recorded, *wanted}):
            yield from _differences(recorded.get(key, _ABSENT), wanted.get(key, _ABSENT), f"{path}.{key}")
    elif isinstance(recorded, list) and isinstance(wanted, list) and len(recorded) == len(wanted):
        for index, (one, other) in enumerate(zip(recorded, wanted, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif recorded != wanted:
        yield path, f"{path} was {_value(recorded)} and is now {_value(wanted)}"


def _value(value: Any) -> str:
    if value is _ABSENT:
        return "not set"
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
