"""What evaluation needs to know of prepared rows, and nothing more: the reader of the tokenised cache fits it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from finetune_trainer.engine import collate


class Rows(collate.Rows, Protocol):
    """Tokenised rows of a suite."""

    def prompt_length(self, index: int) -> int:
        """Tokens before the last completion."""
        ...


class SuiteRows(Protocol):
    """A prepared suite."""

    @property
    def rows(self) -> Rows: ...

    @property
    def labels(self) -> Sequence[str] | None: ...
