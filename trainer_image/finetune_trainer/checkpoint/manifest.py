"""MANIFEST.json: what a committed folder holds, file by file, and its own checksum.

A folder counts only if its manifest is intact to the last bit and every file has the length and SHA-256 written there. The manifest's
own bytes are compared with how they would be written, so that no changed bit of it passes either.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from finetune_trainer.checkpoint.files import FileRecord, record

MANIFEST: Final = "MANIFEST.json"
FORMAT: Final = 1


class Kind(StrEnum):
    CHECKPOINT = "checkpoint"
    HANDOVER = "handover"


class Evaluation(StrEnum):
    """Whether the measurement that belongs to a step is in the checkpoint already."""

    NONE = "none"
    PENDING = "pending"
    DONE = "done"


class Damaged(Exception):
    """A folder that is not what was committed; the message says what is wrong with it."""


@dataclass(frozen=True)
class Manifest:
    """What a committed folder promises."""

    kind: Kind
    stage: str
    step: int
    evaluation: Evaluation = Evaluation.NONE
    files: dict[str, FileRecord] = field(default_factory=dict)

    def render(self) -> bytes:
        """The file's bytes: JSON with a checksum over the rest of it."""
        body: dict[str, Any] = {
            "format": FORMAT,
            "kind": self.kind,
            "stage": self.stage,
            "step": self.step,
            "evaluation": self.evaluation,
            "files": {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in sorted(self.files.items())},
        }
        return _dump({**body, "sha256": hashlib.sha256(_dump(body)).hexdigest()})

    @property
    def sha256(self) -> str:
        """Identifies the whole folder: the hash of a file that holds the hashes of all others."""
        return hashlib.sha256(self.render()).hexdigest()


def read(folder: Path) -> Manifest:
    """Read and check the manifest alone. Raises Damaged."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{MANIFEST} can't be read ({error.strerror})") from error
    try:
        document = json.loads(data)
        manifest = Manifest(
            kind=Kind(document["kind"]),
            stage=document["stage"],
            step=document["step"],
            evaluation=Evaluation(document["evaluation"]),
            files={name: FileRecord(entry["sha256"], entry["size"]) for name, entry in document["files"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{MANIFEST} is no manifest of format {FORMAT}") from error
    if manifest.render() != data:
        raise Damaged(f"{MANIFEST} was changed after it was written, or has another format than {FORMAT}")
    return manifest


def verify(folder: Path, *, trusted: frozenset[str] = frozenset()) -> Manifest:
    """Read every file of a committed folder and compare it with its manifest.

    `trusted` names files that need no second reading (hard links to what was verified a moment ago). Hidden files are not ours
    (a network file system leaves some) and are passed over. Raises Damaged with the first difference.
    """
    manifest = read(folder)
    for name, promised in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
            if size != promised.size:
                raise Damaged(f"{name} has {size} bytes instead of {promised.size}")
            if name not in trusted and record(folder / name) != promised:
                raise Damaged(f"{name} has another SHA-256 than its manifest says")
        except OSError as error:
            raise Damaged(f"{name} can't be read ({error.strerror})") from error
    extra = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    for name in extra:
        if name != MANIFEST and name not in manifest.files:
            raise Damaged(f"{name} is not in its manifest")
    return manifest


def _dump(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=True) + "\n").encode()
