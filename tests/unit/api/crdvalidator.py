"""The API server's own judgement, from the Go program in tests/crdvalidator, which is built here where it is missing or old."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts import go

ROOT: Final = Path(__file__).parents[3]
SOURCES: Final = ROOT / "tests/crdvalidator"
CRD: Final = ROOT / "crds/finetune.dev_finetunejobs.yaml"
RUNTIME_CRD: Final = ROOT / "crds/finetune.dev_clusterfinetuneruntimes.yaml"


@dataclass(frozen=True)
class Verdict:
    """What the API server says to one manifest."""

    errors: list[dict[str, str]]
    unknown: list[str]
    cost: int
    stored: dict[str, Any]


class CrdValidator:
    """A running validator, and its judgement of the definition itself."""

    def __init__(self, definition: Path = CRD) -> None:
        command = [str(go.build(SOURCES)), str(definition)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        self.definition: dict[str, Any] = self._read()

    def judge(self, document: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> Verdict:
        """Return the verdict on creating a manifest, or on changing `old` into it."""
        assert self.process.stdin is not None
        request = {"object": document} if old is None else {"object": document, "old": old}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        return Verdict(answer["errors"], answer["unknown"] or [], answer["cost"], answer["object"])

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the validator ended with {self.process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()
