"""One source becomes one part: taken from the cache by its key, or tokenised into it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_api.constants import Reason
from finetune_api.v1alpha1.data import DataFormat
from finetune_api.wire import Activity
from finetune_trainer.data.cache import PartCache
from finetune_trainer.data.hashes import FileHashes, combined
from finetune_trainer.data.problems import Problems
from finetune_trainer.data.report import FileRecord, SourceReport
from finetune_trainer.data.rows import META, RowSetWriter
from finetune_trainer.data.sources import Located
from finetune_trainer.data.tasks import Task, part_key
from finetune_trainer.data.tokenise import Tally, Tokeniser, histogram, tokenise_documents
from finetune_trainer.errors import TrainerError
from finetune_trainer.objectives import Document, Objective, text_side
from finetune_trainer.objectives.classification import Classification
from finetune_trainer.progress import Reporter
from finetune_trainer.workload import PREPARE_PERCENT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REPORT_SECONDS = 0.2


@dataclass
class Progress:
    """Tells the reporter how many bytes were read, a few times a second."""

    reporter: Reporter
    total: int = 0
    done: int = 0
    _told: float = field(default=0.0, repr=False)

    def __call__(self, size: int) -> None:
        self.done += size
        now = time.monotonic()
        if now - self._told >= REPORT_SECONDS:
            self._told = now
            percent = PREPARE_PERCENT * min(1.0, self.done / self.total) if self.total else None
            self.reporter.report(Activity.PREPARE, done=self.done, total=self.total, unit="bytes", percent=percent)


@dataclass(frozen=True)
class Builder:
    """What all sources of a job share."""

    tokenizer: PreTrainedTokenizerFast
    fingerprint: str
    end_tokens: list[int]
    hashes: FileHashes
    cache: PartCache
    problems: Problems
    progress: Progress
    stop: Callable[[], bool]

    def key(self, task: Task, located: Located) -> str:
        """The part's name; hashes the files where their hash isn't known."""
        hashes = [self.hashes.sha256(file) for file in located.files]
        return part_key(task, format=located.format, hashes=hashes, tokenizer=self.fingerprint, end_tokens=self.end_tokens)

    def has(self, task: Task, located: Located) -> bool:
        """Whether the part is there already."""
        return self.cache.find(self.key(task, located)) is not None

    def refusal(self, task: Task) -> str | None:
        """Why this tokenizer can't give the rows of an objective; None where it can."""
        try:
            text_side(task.objective, self.tokenizer, task.options)
        except TrainerError as error:
            return str(error)
        return None

    def build(self, task: Task, located: Located) -> SourceReport | None:
        """The source's report; None where it has a problem (which is added to the others)."""
        key = self.key(task, located)
        place = self.cache.find(key)
        if place is None:
            before = self.problems.count
            try:
                self._tokenise(task, located, key)
            except TrainerError as error:
                if error.reason is Reason.STOPPED:
                    raise
                self.problems.add_error(error)
            place = self.cache.find(key) if self.problems.count == before else None
        return None if place is None else self._report(task, located, key, json.loads((place / META).read_text(encoding="utf-8")))

    def _tokenise(self, task: Task, located: Located, key: str) -> None:
        objective = text_side(task.objective, self.tokenizer, dataclasses.replace(task.options, end_tokens=tuple(self.end_tokens)))
        before, states = self.problems.count, [file.stat() for file in located.files]
        vocabulary = max(self.tokenizer.get_vocab().values()) + 1
        with (
            self.cache.building(key) as folder,
            RowSetWriter(folder, vocabulary=vocabulary, supervision=objective.supervision, groups=len(task.groups)) as writer,
        ):
            named: dict[str, dict[str, int]] = {}
            tally = self._run(task, located, objective, writer, named)
            if not tally.read_rows and self.problems.count == before:
                self.problems.add(located.names[0], None, _empty(located), Reason.DATA_EMPTY)
            for file, name, state in zip(located.files, located.names, states, strict=True):
                now = file.stat()
                if (now.st_size, now.st_mtime_ns) != (state.st_size, state.st_mtime_ns):
                    self.problems.add(name, None, "the file was changed while it was read; start again when it is whole")
            if self.problems.count == before:
                labels = list(objective.labels) if isinstance(objective, Classification) else []
                groups = {"groups": {role: list(values) for role, values in named.items()}} if named else {}
                writer.close(labels=labels, tally=tally.document(), supervised=writer.supervised, **groups)

    def _run(self, task: Task, located: Located, objective: Objective, writer: RowSetWriter, named: dict[str, dict[str, int]]) -> Tally:
        if located.format is not DataFormat.TEXT:
            return Tokeniser(located, objective, writer, self.problems, self.progress, self.stop, task.augmenter, task.groups, named).run()
        if not isinstance(objective, Document):
            raise TrainerError(
                Reason.INVALID_SPEC,
                f"plain text has no columns, and the objective {task.objective} needs them: use jsonl, csv or parquet",
                where=task.where,
            )
        if task.groups:
            raise TrainerError(
                Reason.INVALID_SPEC, "plain text has no column of domains or confounders: use jsonl, csv or parquet", where=task.where
            )
        if task.augmenter is not None:
            raise TrainerError(Reason.INVALID_SPEC, "plain text has no rows to copy: leave data.augmentation out", where=task.where)
        return tokenise_documents(located, objective, writer, problems=self.problems, advance=self.progress, stop=self.stop)

    def _report(self, task: Task, located: Located, key: str, meta: dict[str, Any]) -> SourceReport:
        tally = meta["tally"]
        hashes = [self.hashes.sha256(file) for file in located.files]
        files = [
            FileRecord(path=name, sha256=digest, bytes=file.stat().st_size, notes=notes)
            for name, digest, file, notes in zip(located.names, hashes, located.files, tally["notes"], strict=True)
        ]
        return SourceReport(
            uri=located.uri,
            field=task.where,
            format=located.format,
            revision=located.revision,
            sha256=combined(hashes),
            files=files,
            key=key,
            weight=task.weight,
            rows=meta["rows"],
            tokens=meta["tokens"],
            supervised=meta["supervised"],
            histogram=histogram(np.asarray(tally["buckets"], np.int64)),
            augmented=tally.get("augmented", 0),
            **{name: tally[name] for name in _COUNTS},
        )


_COUNTS = ("read_rows", "truncated", "tokens_cut", "dropped_long", "dropped_unsupervised", "dropped_empty")


def _empty(located: Located) -> str:
    if all(file.stat().st_size == 0 for file in located.files):
        return "the file is empty" if len(located.files) == 1 else f"all {len(located.files)} files of {located.uri} are empty"
    return "has no row" if len(located.files) == 1 else f"no file of {located.uri} has a row"


def size(located: Located) -> int:
    """Bytes of a source's files."""
    return sum(Path(file).stat().st_size for file in located.files)
