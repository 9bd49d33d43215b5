"""How what a finished job left on its volume reaches a user: the request, what the reading pod is told, and what it prints.

A reading pod has no right and no address: all that leaves it is the log of its containers. The kubelet rotates a log at 10 MiB and hands out
the newest file only, so each container prints one slice of at most 6 MiB, which base64 makes 8. The files are one stream of bytes, one
after the other, cut into slices; SLICES_A_JOB slices are a part, which is one Job, and the next part is asked for by the next request.

A slice is a line BEGIN with a SliceHead, lines DATA with base64, and a line END with a SliceEnd; whatever else a container prints is not ours.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from finetune_api.base import WireModel
from finetune_api.v1alpha1.status import Artifact

MIB: Final = 1 << 20
SLICE_BYTES: Final = 6 * MIB
SLICES_A_JOB: Final = 8
MAX_READ_BYTES: Final = 1024 * MIB
"""What is larger is not read through logs: it would take 22 Jobs. Whoever wants it mounts the claim."""
MAX_LOG_BYTES: Final = 4 * SLICE_BYTES
"""Of the logs, newest first. Nobody knows their size before they are read, so each Job reads one slice of them."""
MAX_REQUEST: Final = 256
"""Characters of the annotation."""
MAX_FILES: Final = 1024
_LINE: Final = 9000
"""Bytes a line: a container runtime breaks lines of more than 16 KiB, and writes 40 bytes before each."""
BEGIN: Final = "finetune-read-begin "
DATA: Final = "finetune-read "
END: Final = "finetune-read-end "


class What(StrEnum):
    """What can be asked for."""

    REPORT = "report"
    ADAPTER = "adapter"
    MERGED = "merged"
    LOGS = "logs"


KINDS: Final[Mapping[What, tuple[str, ...]]] = {
    What.REPORT: ("report", "modelCard"),
    What.ADAPTER: ("adapter",),
    What.MERGED: ("merged",),
    What.LOGS: (),
}
"""The kinds of artifacts that each stands for."""


NAMES: Final[Mapping[str, str]] = {"adapter": "adapter", "merged": "merged", "modelCard": "README.md", "report": "report.html"}
"""What each kind of artifact is called in the folder of the artifacts: the first two are folders."""


class ReadRequest(WireModel):
    """The annotation finetune.dev/read of a FineTuneJob. Nothing in it is a path or a name: an id, a word and a number."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    """Any number, new for each request: it ends the Job's name."""
    what: Annotated[What, Field(strict=False)]
    part: Annotated[int, Field(ge=1, le=MAX_READ_BYTES // (SLICE_BYTES * SLICES_A_JOB) + 1)] = 1

    @classmethod
    def read(cls, text: str) -> ReadRequest | None:
        """Read the annotation; None where it is no request."""
        if len(text) > MAX_REQUEST:
            return None
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None

    @property
    def text(self) -> str:
        return self.model_dump_json()


def request_id(text: str) -> str:
    """The id under which an annotation is answered: the request's own, or, of a text that is no request, a hash, so that it is refused once."""
    request = ReadRequest.read(text)
    return request.id if request is not None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Reading(WireModel):
    """What the pod is told, in its config."""

    what: What
    artifacts: list[Artifact] = []
    """As the status has them: what does not have their hash is not read."""
    first: int = 0
    """The first slice that this pod prints: that container checks the hashes, and the others begin only after it succeeded."""


def asked_for(what: What, artifacts: Iterable[Artifact]) -> list[Artifact]:
    """The artifacts that are meant, in the order of their kinds."""
    found = list(artifacts)
    return [artifact for kind in KINDS[what] for artifact in found if artifact.kind == kind]


def artifacts_of(status: Mapping[str, Any]) -> list[Artifact]:
    """What a job's status says was published; what does not read as an artifact (of a newer version, say) is left out."""
    found = []
    for document in status.get("artifacts") or []:
        try:
            found.append(Artifact.model_validate(document, extra="ignore"))
        except ValidationError:
            continue
    return found


def slices_of(size: int) -> int:
    """How many slices so many bytes make; there is one of nothing, too."""
    return max(1, -(-size // SLICE_BYTES))


def part_of(request: ReadRequest, artifacts: Iterable[Artifact]) -> range:
    """The slices of a request's part, none beyond the end."""
    if request.what is What.LOGS:
        return range(request.part - 1, min(request.part, slices_of(MAX_LOG_BYTES)))
    last = slices_of(sum(artifact.bytes for artifact in asked_for(request.what, artifacts)))
    return range((request.part - 1) * SLICES_A_JOB, min(request.part * SLICES_A_JOB, last))


class FileEntry(WireModel):
    """A file of the stream."""

    name: str
    """Relative, with / between folders."""
    bytes: Annotated[int, Field(ge=0, le=MAX_READ_BYTES)]


class SliceHead(WireModel):
    """What a container prints first."""

    version: Literal[1] = 1
    slice: Annotated[int, Field(ge=0)]
    slices: Annotated[int, Field(ge=1)]
    """In all."""
    bytes: Annotated[int, Field(ge=0, le=SLICE_BYTES)]
    """Of this slice."""
    files: Annotated[list[FileEntry], Field(max_length=MAX_FILES)]
    """All, in the order of the stream."""


class SliceEnd(WireModel):
    """What it prints last."""

    sha256: str
    """Of the slice's bytes."""


@dataclass(frozen=True)
class Slice:
    head: SliceHead
    data: bytes


def printed(found: Slice) -> Iterator[str]:
    """The lines of a slice, without their ends."""
    yield BEGIN + found.head.model_dump_json()
    for start in range(0, len(found.data), _LINE):
        yield DATA + base64.b64encode(found.data[start : start + _LINE]).decode()
    yield END + SliceEnd(sha256=hashlib.sha256(found.data).hexdigest()).model_dump_json()


def read_slice(lines: Iterable[bytes]) -> Slice:
    """Put a slice together again from a container's log. Raises ValueError where a part is missing or damaged."""
    head: SliceHead | None = None
    data = bytearray()
    for line in lines:
        if line.startswith(BEGIN.encode()):
            head, data = SliceHead.model_validate_json(line[len(BEGIN) :]), bytearray()
        elif line.startswith(END.encode()) and head is not None:
            end = SliceEnd.model_validate_json(line[len(END) :])
            if len(data) != head.bytes or hashlib.sha256(data).hexdigest() != end.sha256:
                raise ValueError(f"slice {head.slice} is damaged: {len(data)} of {head.bytes} bytes, or others, arrived")
            return Slice(head, bytes(data))
        elif line.startswith(DATA.encode()) and head is not None:
            try:
                data += base64.b64decode(line[len(DATA) :], validate=True)
            except binascii.Error as error:
                raise ValueError(f"slice {head.slice} is damaged: {error}") from error
            if len(data) > head.bytes:
                raise ValueError(f"slice {head.slice} is longer than it said")
    raise ValueError("its end is missing" if head is not None else "its beginning is missing")


def safe_name(name: str) -> bool:
    """Whether a file's name leads nowhere but below the folder that it is written to. Names come from a pod, which may run any image."""
    parts = name.split("/")
    return len(parts) <= 8 and len(name) <= 255 and all(re.fullmatch(r"[A-Za-z0-9_+=@~,-][A-Za-z0-9_.+=@~,-]*", part) for part in parts)


def digest_of(files: Mapping[str, str]) -> str:
    """The sha256 of a folder's artifact, from the sha256 of each of its files by name: as the trainer's `measured` has it."""
    lines = (f"{name}\0{files[name]}\n" for name in sorted(files, key=lambda name: name.split("/")))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
