"""Rows in memory, for tests that need no files."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass
class MemoryRows:
    """Lists of token numbers; everything is supervised from `prompts[i]` on."""

    lists: list[list[int]]
    prompts: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        return np.array([len(tokens) for tokens in self.lists], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.lists)

    def tokens(self, index: int) -> npt.NDArray[np.int32]:
        return np.array(self.lists[index], dtype=np.int32)

    def supervised(self, index: int) -> npt.NDArray[np.bool_]:
        return np.arange(len(self.lists[index])) >= (self.prompts[index] if self.prompts else 0)

    def label(self, index: int) -> int:
        return self.classes[index]

    def prompt_length(self, index: int) -> int:
        return self.prompts[index] if self.prompts else 0

    def id(self, index: int) -> str:
        return f"{index:016x}"


@dataclass
class MemorySuite:
    rows: MemoryRows
    labels: list[str] | None = None
