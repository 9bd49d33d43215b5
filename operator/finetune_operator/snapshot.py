"""A job's runtime as it was when the job started: later attempts take it from the Jobs before them, so that a change reaches new jobs only."""

from __future__ import annotations

import functools
import json
from decimal import Decimal
from typing import Any, Final

import orjson
from pydantic import ValidationError

from finetune_api import constants as c
from finetune_api.base import WireModel
from finetune_api.v1alpha1.runtime import ClusterFineTuneRuntimeSpec, RoleResources
from finetune_operator.model import Manifest

_SUFFIXES: Final = {"m": Decimal("0.001"), "k": Decimal(1000), "": Decimal(1)}


class RuntimeSnapshot(WireModel):
    """A ClusterFineTuneRuntime at one generation."""

    name: str
    uid: str
    generation: int
    spec: ClusterFineTuneRuntimeSpec

    @classmethod
    def of(cls, runtime: Manifest) -> RuntimeSnapshot:
        """Take a ClusterFineTuneRuntime as the API server has it. Raises pydantic's ValidationError."""
        metadata = runtime["metadata"]
        return _of(metadata["name"], metadata["uid"], metadata.get("generation", 1), orjson.dumps(runtime["spec"]))

    @classmethod
    def read(cls, text: str | None) -> RuntimeSnapshot | None:
        """Read what `text` wrote; None where it is missing or was changed into something else."""
        return _read(text) if text else None

    @functools.cached_property
    def text(self) -> str:
        """The annotation: JSON, the same for the same runtime."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True), sort_keys=True, separators=(",", ":"))

    def status(self) -> dict[str, Any]:
        """Say it in a job's status."""
        return {
            "name": self.name,
            "uid": self.uid,
            "generation": self.generation,
            "image": self.spec.image,
            "snapshot": self.text,
        }

    @property
    def threads(self) -> int:
        """CPU threads of torch: the runtime's number, else the whole CPUs of a training pod's limit or request, else 1."""
        return self.spec.threads or max(1, int(cpus(self.spec.resources.train)))


@functools.lru_cache(maxsize=64)  # thousands of jobs share a few runtimes
def _of(name: str, uid: str, generation: int, spec: bytes) -> RuntimeSnapshot:
    return RuntimeSnapshot(name=name, uid=uid, generation=generation, spec=ClusterFineTuneRuntimeSpec.model_validate(orjson.loads(spec)))


@functools.lru_cache(maxsize=64)  # and each decision reads its own twice
def _read(text: str) -> RuntimeSnapshot | None:
    try:
        return RuntimeSnapshot.model_validate_json(text)
    except ValidationError:
        return None


def cpus(resources: RoleResources) -> Decimal:
    """Return the CPUs of a limit, else of a request, else none."""
    text = resources.limits.get("cpu") or resources.requests.get("cpu") or "0"
    suffix = text[-1] if text[-1] in "mk" else ""
    return Decimal(text.removesuffix(suffix)) * _SUFFIXES[suffix]


def snapshot_of(job: Manifest) -> RuntimeSnapshot | None:
    """Read the snapshot that a batch Job carries."""
    return RuntimeSnapshot.read((job["metadata"].get("annotations") or {}).get(c.RUNTIME_SNAPSHOT_ANNOTATION))
