"""Which folders a run may read: its own epoch, and of each ancestor only what its line of descent started from.

Two pods can run the same job at once (a lost node comes back). Each start makes an epoch folder of its own, writes nowhere else, and
records once from which checkpoint it starts. A reader walks that record back, so whatever a zombie commits later is never read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from finetune_api.constants import Reason
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.manifest import Damaged, Evaluation, Kind, Manifest, verify
from finetune_trainer.errors import TrainerError

LINEAGE: Final = "lineage.json"
STAGES: Final = "stages"
HANDOVER: Final = "handover"
NAME: Final = re.compile(r"checkpoint-(\d{8})(-pending)?")

Position: TypeAlias = tuple[int, bool, int, bool]
"""Order in a run: stage, whether it is the stage's hand-over, step, whether its evaluation is in."""


def stage_name(index: int, name: str) -> str:
    """The name of a stage's folders; the index (from 0, over the whole job) orders them."""
    return f"{index}-{name}"


def stage_index(stage: str) -> int:
    return int(stage.partition("-")[0])


def folder_name(kind: Kind, step: int, evaluation: Evaluation) -> str:
    """`handover`, `checkpoint-00000040`, or `checkpoint-00000040-pending` while its evaluation is missing."""
    return HANDOVER if kind is Kind.HANDOVER else f"checkpoint-{step:08d}{'-pending' if evaluation is Evaluation.PENDING else ''}"


@dataclass(frozen=True)
class CheckpointRef:
    """A committed folder whose every file was verified."""

    path: Path
    epoch: int
    kind: Kind
    stage: str
    """`0-domain`: index and name."""
    step: int
    evaluation: Evaluation
    sha256: str
    """Of its manifest, and so of all that is in it."""

    @property
    def position(self) -> Position:
        return position(self.kind, self.stage, self.step, self.evaluation)

    @classmethod
    def of(cls, path: Path, epoch: int, manifest: Manifest) -> CheckpointRef:
        return cls(path, epoch, manifest.kind, manifest.stage, manifest.step, manifest.evaluation, manifest.sha256)

    def document(self) -> dict[str, Any]:
        """How it stands in lineage.json and in the journal."""
        return {
            "epoch": self.epoch,
            "kind": self.kind,
            "stage": self.stage,
            "step": self.step,
            "evaluation": self.evaluation,
            "sha256": self.sha256,
        }

    def __str__(self) -> str:
        stage = self.stage.partition("-")[2]
        return f"the hand-over of stage {stage}" if self.kind is Kind.HANDOVER else f"step {self.step} of stage {stage}"


def position(kind: Kind, stage: str, step: int, evaluation: Evaluation) -> Position:
    return (stage_index(stage), kind is Kind.HANDOVER, step, evaluation is not Evaluation.PENDING)


def document_position(document: dict[str, Any]) -> Position:
    """The position of a ref that was written by `CheckpointRef.document`."""
    return position(Kind(document["kind"]), document["stage"], document["step"], Evaluation(document["evaluation"]))


@dataclass(frozen=True)
class Rejected:
    """A folder that would have been newer, and why it is not used."""

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{'/'.join(self.path.parts[-5:])}: {self.why}"


@dataclass(frozen=True)
class Link:
    """One epoch of a chain, and how far into it the chain reaches (None: all of it)."""

    epoch: int
    folder: Path
    limit: Position | None


@dataclass(frozen=True)
class Candidate:
    """A committed folder by its name alone, unverified."""

    path: Path
    epoch: int
    kind: Kind
    stage: str
    step: int
    evaluation: Evaluation

    @property
    def position(self) -> Position:
        return position(self.kind, self.stage, self.step, self.evaluation)


@dataclass(frozen=True)
class Found:
    """What a start can build on."""

    newest: CheckpointRef | None
    handovers: dict[str, CheckpointRef]
    """Of the stages before `newest` (and its own, where it is a hand-over)."""
    rejected: list[Rejected]


def epoch_folder(epochs: Path, number: int) -> Path:
    return epochs / f"{number:04d}"


def epoch_numbers(epochs: Path) -> list[int]:
    """The epochs that were ever begun, in order."""
    return sorted(int(entry.name) for entry in epochs.iterdir() if entry.name.isdigit()) if epochs.is_dir() else []


def head(epochs: Path) -> int | None:
    """The newest epoch that has recorded where it starts; one that died before has written nothing else."""
    return max((number for number in epoch_numbers(epochs) if (epoch_folder(epochs, number) / LINEAGE).exists()), default=None)


def write_lineage(folder: Path, *, parent: int | None, start: CheckpointRef | None, files: FileLayer) -> None:
    """Record once where an epoch starts from."""
    body = {"parent": parent, "start": start.document() if start else None}
    files.replace_file(folder / LINEAGE, _render(body))


def read_lineage(folder: Path) -> tuple[int | None, dict[str, Any] | None]:
    """Parent epoch and the ref it started from. Raises TrainerError(CheckpointInvalid)."""
    path = folder / LINEAGE
    try:
        document = json.loads(data := path.read_bytes())
        body = {"parent": document["parent"], "start": document["start"]}
        intact = _render(body) == data
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise TrainerError(Reason.CHECKPOINT_INVALID, "the record of where this epoch started from is damaged", where=str(path))
    return body["parent"], body["start"]


def chain(epochs: Path, number: int | None) -> list[Link]:
    """The epochs that `number` descends from, itself first, each with how far it may be read."""
    links: list[Link] = []
    limit: Position | None = None
    while number is not None:
        folder = epoch_folder(epochs, number)
        links.append(Link(number, folder, limit))
        number, start = read_lineage(folder)
        if start is None:
            break
        limit = document_position(start) if limit is None else min(limit, document_position(start))
    return links


def candidates(links: Sequence[Link]) -> list[Candidate]:
    """What the chain has, newest first, by names alone."""
    found = [candidate for link in links for candidate in _in_epoch(link.epoch, link.folder) if _within(candidate, link.limit)]
    return sorted(found, key=lambda candidate: (candidate.position, candidate.epoch), reverse=True)


def dead(links: Sequence[Link]) -> list[Path]:
    """Folders in the ancestors that no reader follows any more: damaged ones that were passed over, and half-written ones."""
    beyond = [
        candidate.path for link in links[1:] for candidate in _in_epoch(link.epoch, link.folder) if not _within(candidate, link.limit)
    ]
    hidden = [entry for link in links[1:] for stage in _stages(link.folder) for entry in stage.iterdir() if entry.name.startswith(".")]
    return beyond + [entry for entry in hidden if entry.is_dir()]


def newest_valid(links: Sequence[Link]) -> Found:
    """Verify from the newest on until one holds, with every hand-over that it builds on."""
    rejected: list[Rejected] = []
    verified: dict[Path, CheckpointRef | None] = {}

    def check(candidate: Candidate) -> CheckpointRef | None:
        if candidate.path not in verified:
            try:
                verified[candidate.path] = verify_candidate(candidate)
            except Damaged as error:
                verified[candidate.path] = None
                rejected.append(Rejected(candidate.path, str(error)))
        return verified[candidate.path]

    every = candidates(links)
    for candidate in every:
        newest = check(candidate)
        if newest is None:
            continue
        handovers = {}
        for other in every:
            if (
                other.kind is Kind.HANDOVER
                and other.position <= candidate.position
                and other.stage not in handovers
                and (ref := check(other))
            ):
                handovers[other.stage] = ref
        index = stage_index(candidate.stage)
        missing = set(range(index)) - {stage_index(stage) for stage in handovers}
        if not missing:
            return Found(newest, handovers, rejected)
        rejected.append(Rejected(candidate.path, f"the hand-over of stage {min(missing)}, which it builds on, is missing or damaged"))
    return Found(None, {}, rejected)


def verify_candidate(candidate: Candidate) -> CheckpointRef:
    """Verify every file, and that the folder is what its name says. Raises Damaged."""
    manifest = verify(candidate.path)
    named = folder_name(manifest.kind, manifest.step, manifest.evaluation)
    if (manifest.stage, named) != (candidate.stage, candidate.path.name):
        raise Damaged(f"its manifest is that of {manifest.stage}/{named}")
    return CheckpointRef.of(candidate.path, candidate.epoch, manifest)


def _within(candidate: Candidate, limit: Position | None) -> bool:
    return limit is None or candidate.position <= limit


def _stages(folder: Path) -> list[Path]:
    stages = folder / STAGES
    return sorted(stage for stage in stages.iterdir() if stage.is_dir()) if stages.is_dir() else []


def _in_epoch(epoch: int, folder: Path) -> list[Candidate]:
    found = []
    for stage in _stages(folder):
        for entry in stage.iterdir():
            if entry.name == HANDOVER:
                found.append(Candidate(entry, epoch, Kind.HANDOVER, stage.name, 0, Evaluation.NONE))
            elif match := NAME.fullmatch(entry.name):
                evaluation = Evaluation.PENDING if match[2] else Evaluation.NONE
                found.append(Candidate(entry, epoch, Kind.CHECKPOINT, stage.name, int(match[1]), evaluation))
    return found


def _render(body: dict[str, Any]) -> bytes:
    text = json.dumps(body, sort_keys=True)
    return (json.dumps({**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}, sort_keys=True) + "\n").encode()
