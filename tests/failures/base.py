"""What a seeded failure is, and how it is judged: by its reason and exit code, the place that it names, its hint, and a pass once the hint
was followed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from finetune_api.constants import REASONS, Reason

KILLED: Final = 137
"""What the command ends with where its trainer was killed: of all reasons only UnknownExit has no code of its own."""


class Layer(StrEnum):
    """Where the cause lies."""

    MANIFEST = "manifest"
    DATA = "data"
    MODEL = "model"
    MEMORY = "memory"
    STORAGE = "storage"
    IMAGE = "image"
    NODE = "node"
    QUOTA = "quota"
    NETWORK = "network"
    OPERATOR = "operator"
    TRAINER = "trainer"


class Level(StrEnum):
    """What it is tried on."""

    VALIDATE = "validate"
    """`finetune validate`, and a plan of the corrected manifest."""
    RUN = "run"
    """`finetune run` with the real trainer and a tiny model."""
    CLUSTER = "cluster"
    """A real API server, scheduler, controllers and operator; a test plays the kubelet."""
    POD = "pod"
    """A real kubelet, and the real images of operator and trainer."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    name: str
    layer: Layer
    what: str
    """What is wrong, for the table."""
    reason: str
    place: str
    """Words of the message that name the field, the file and line, the stage, the object."""
    hint: str
    """Words of the hint that are followed."""
    fix: str
    """What was done about it."""

    @property
    def level(self) -> Level:
        raise NotImplementedError


@dataclass(frozen=True)
class Told:
    """What a user was told."""

    reason: str
    message: str
    hint: str
    noise: str = ""
    """All that was shown beside it."""
    code: int | None = None
    """The exit code; None where no command ended."""


def shortfalls(failure: Failure, told: Told) -> list[str]:
    """Say in what a failure was told badly; nothing where all is well."""
    found = []
    if told.reason != failure.reason:
        found.append(f"the reason is {told.reason}, not {failure.reason}")
    code = REASONS[Reason(failure.reason)].exit_code if failure.reason in {*Reason} else KILLED
    if told.code is not None and told.code != code:
        found.append(f"the exit code is {told.code}, not {code}")
    if failure.place not in told.message:
        found.append(f"{failure.place!r} is not named")
    if not told.hint:
        found.append("there is no hint")
    if failure.hint not in told.hint:
        found.append(f"the hint does not say {failure.hint!r}")
    if "Traceback" in told.noise:
        found.append("a traceback is shown")
    return [f"{each}; it says {told.message!r} → {told.hint!r}" for each in found]
