"""From the files of a source to a part of tokenised rows: read, check, tokenise and write as one stream, in bounded memory.

Tokenising runs in a thread beside the reading (the tokenizer frees the interpreter), one batch ahead, so that both cores work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune_trainer.data.augment import Augmenter
from finetune_trainer.data.formats import FileProblem, read_rows, text
from finetune_trainer.data.problems import Problems
from finetune_trainer.data.report import Histogram
from finetune_trainer.data.rows import RowSetWriter
from finetune_trainer.data.sources import Located
from finetune_trainer.errors import Stopped
from finetune_trainer.objectives import Document, Example, Fate, Objective, Outcome, RowError
from finetune_trainer.objectives.base import text_field

BATCH_ROWS = 512
BATCH_CHARACTERS = 1 << 19
MOST_GROUPS = 1024
LONGEST_GROUP = 256
STOPPED = "while the data was prepared; the sources that were finished are kept"
"""What is tokenised at once: the tokenizer needs about a hundred bytes a token while it works."""

EDGES: npt.NDArray[np.int64] = np.unique([0, 1, *(2**power * part // 2 for power in range(1, 24) for part in (2, 3))])
"""Buckets of the length histogram: powers of two, and halfway between them."""


@dataclass
class Tally:
    """What became of a source's rows; kept in the part's meta.json."""

    read_rows: int = 0
    truncated: int = 0
    tokens_cut: int = 0
    dropped_long: int = 0
    dropped_unsupervised: int = 0
    dropped_empty: int = 0
    augmented: int = 0
    buckets: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(EDGES), np.int64))
    notes: list[list[str]] = field(default_factory=list)
    """What was tolerated, a list a file."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**self.__dict__, "buckets": self.buckets.tolist()}


class _Placed(NamedTuple):
    file: int
    line: int
    example: Example
    groups: tuple[int, ...] = ()
    copy: bool = False
    """Of the row before it that is none."""


@dataclass
class Tokeniser:
    """Turns one source into one part. `advance` is told bytes as they are read; `stop` is asked between batches."""

    located: Located
    objective: Objective
    writer: RowSetWriter
    problems: Problems
    advance: Callable[[int], None]
    stop: Callable[[], bool]
    augmenter: Augmenter | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    """Columns that say of which domain a row is, and with which confounder."""
    named: dict[str, dict[str, int]] = field(default_factory=dict)
    """Their values, numbered in the order in which they come."""
    tally: Tally = field(default_factory=Tally)
    kept: bool = False
    """Whether the last row was kept that is no copy: its copies go where it goes."""

    def run(self) -> Tally:
        """Read every file to its end, whatever is wrong with it. Raises Stopped."""
        with ThreadPoolExecutor(1) as pool:
            waiting: tuple[list[_Placed], Future[list[Outcome]]] | None = None
            for batch in self._batches():
                running = (batch, pool.submit(self.objective.encode, [placed.example for placed in batch]))
                if waiting is not None:
                    self._write(*waiting)
                waiting = running
            if waiting is not None:
                self._write(*waiting)
        return self.tally

    def _batches(self) -> Iterator[list[_Placed]]:
        batch: list[_Placed] = []
        size = 0
        for placed in self._examples():
            batch.append(placed)
            size += placed.example.size
            if len(batch) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
                if self.stop():
                    raise Stopped(STOPPED)
        if batch:
            yield batch

    def _examples(self) -> Iterator[_Placed]:
        located = self.located
        for number, (path, name) in enumerate(zip(located.files, located.names, strict=True)):
            notes: list[str] = []
            try:
                for record in read_rows(path, located.format, self._columns(), notes):
                    self.tally.read_rows += 1
                    self.advance(record.size)
                    if record.problem is not None:
                        self.problems.add(name, record.line, record.problem)
                        continue
                    try:
                        example = self.objective.read(record.row)
                        groups = tuple(self._group(role, record.row) for role in self.groups)
                    except RowError as error:
                        self.problems.add(name, record.line, str(error), error.reason)
                        continue
                    if example is None:
                        self.tally.dropped_empty += 1
                    else:
                        placed = _Placed(number, record.line, example, groups)
                        yield placed
                        yield from self._copies(record.row, placed)
            except FileProblem as problem:
                self.problems.add(name, problem.line, str(problem))
            self.tally.notes.append(notes)

    def _columns(self) -> list[str]:
        return [*self.objective.columns, *self.groups.values()]

    def _group(self, role: str, row: Mapping[str, Any]) -> int:
        """The number of a row's domain or confounder. Raises RowError."""
        column, named = self.groups[role], self.named.setdefault(role, {})
        value = row.get(column)
        name = str(value) if isinstance(value, int) and not isinstance(value, bool) else text_field(row, column, field=role)
        if not name.strip() or len(name) > LONGEST_GROUP:
            raise RowError(f"field {column!r} must name the row's {role} in 1 to {LONGEST_GROUP} characters")
        if name not in named and len(named) >= MOST_GROUPS:
            raise RowError(f"{role} {name!r} is one more than the {MOST_GROUPS} that are supported; is {column!r} the right column?")
        return named.setdefault(name, len(named))

    def _copies(self, row: Mapping[str, Any], placed: _Placed) -> Iterator[_Placed]:
        """Augmented copies. They have the row's own input hash: who validates on the row may not train on its copies."""
        for copied in self.augmenter.copies(row, placed.example.content) if self.augmenter is not None else ():
            example = self.objective.read(copied)
            if example is not None:
                yield placed._replace(example=example._replace(input=placed.example.input), copy=True)

    def _write(self, batch: list[_Placed], outcomes: Future[list[Outcome]]) -> None:
        lengths: list[int] = []
        for placed, outcome in zip(batch, outcomes.result(), strict=True):
            if placed.copy and (not self.kept or outcome.row is None):
                continue
            self.kept = placed.copy or outcome.row is not None
            self.tally.augmented += placed.copy
            lengths.append(outcome.length)
            if outcome.problem is not None:
                self.problems.add(self.located.names[placed.file], placed.line, outcome.problem)
            elif outcome.row is None:
                self.tally.dropped_long += outcome.fate is Fate.TOO_LONG
                self.tally.dropped_unsupervised += outcome.fate is Fate.UNSUPERVISED
            else:
                if outcome.fate is Fate.TRUNCATED:
                    self.tally.truncated += 1
                    self.tally.tokens_cut += outcome.length - len(outcome.row.tokens)
                self.writer.write(outcome.row, file=placed.file, line=placed.line, groups=placed.groups)
        self.tally.buckets += count_lengths(lengths)


def tokenise_documents(
    located: Located,
    objective: Document,
    writer: RowSetWriter,
    *,
    problems: Problems,
    advance: Callable[[int], None],
    stop: Callable[[], bool],
) -> Tally:
    """Plain text: every file is a document, cut in rows of the greatest length; only a document's last row is shorter."""
    tally = Tally()
    for number, (path, name) in enumerate(zip(located.files, located.names, strict=True)):
        notes: list[str] = []
        pending, start, any_text = objective.open_document(), 1, False
        try:
            for record in text.read(path, notes):
                advance(record.size)
                if stop():
                    raise Stopped(STOPPED)
                any_text = any_text or not record.row["text"].isspace()
                pending += objective.piece(record.row["text"])
                full = len(pending) // objective.room * objective.room
                for at in range(0, full, objective.room):
                    _write_chunk(objective, writer, tally, pending[at : at + objective.room], number, start)
                pending, start = pending[full:], record.line
        except FileProblem as problem:
            problems.add(name, problem.line, str(problem))
        tally.notes.append(notes)
        tally.read_rows += 1
        if any_text:
            pending += objective.close_document()
            for at in range(0, len(pending), objective.room):
                _write_chunk(objective, writer, tally, pending[at : at + objective.room], number, start)
        else:
            tally.dropped_empty += 1
    return tally


def _write_chunk(objective: Document, writer: RowSetWriter, tally: Tally, ids: list[int], file: int, line: int) -> None:
    tally.buckets += count_lengths([len(ids)])
    row = objective.chunk(ids)
    if row is None:
        tally.dropped_unsupervised += 1
    else:
        writer.write(row, file=file, line=line)


def count_lengths(lengths: list[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Rows a bucket of EDGES."""
    buckets = np.searchsorted(EDGES, np.asarray(lengths, np.int64), side="right") - 1
    return np.bincount(buckets, minlength=len(EDGES)).astype(np.int64)


def histogram(buckets: npt.NDArray[np.int64]) -> Histogram:
    """The part of the buckets that isn't empty, with the edge after the last one."""
    used = np.flatnonzero(buckets)
    if not len(used):
        return Histogram()
    first, last = int(used[0]), int(used[-1])
    edges = [*EDGES.tolist(), int(EDGES[-1]) * 2]
    return Histogram(edges=edges[first : last + 2], counts=buckets[first : last + 1].tolist())
