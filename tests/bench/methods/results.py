"""The committed results: a line a cell, found again by configHash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).with_name("results.jsonl")

Line = Mapping[str, Any]


@dataclass
class Results:
    """What is measured so far."""

    path: Path = RESULTS
    lines: list[Line] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path = RESULTS) -> Results:
        """A line that a crash cut off is left out."""
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return cls(path, [json.loads(line) for line in lines if line.endswith("\n")])

    def add(self, line: Line) -> None:
        """Append a cell."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self.lines.append(line)

    def find(self, config_hash: str) -> Line | None:
        """The cell of this configuration, or the one that was chosen from candidates of which this is one."""
        return next((line for line in self.lines if config_hash == line["configHash"] or config_hash in line.get("candidates", {})), None)

    def factor(self, setting: str, task: str) -> float | None:
        """The factor of the default rate that validation chose for a row."""
        return next((line["factor"] for line in self.lines if line["setting"] == setting and line["task"] == task), None)
