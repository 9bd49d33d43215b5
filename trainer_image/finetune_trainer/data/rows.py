"""Tokenised rows on disk: written once as a stream, read through memory maps, so that memory doesn't grow with the data.

A part is one folder of flat little-endian files and a `meta.json`; it is written by RowSetWriter and never changed. A RowSet is a view
over one or more parts: some of their rows, in some order, without a copy.

    tokens.bin      uint16 or uint32, all rows one after the other      offsets.bin   int64 [rows + 1], where each row starts
    supervised.bin  uint8 a token; only where meta says "mask"          counts.bin    int32, supervised tokens a row
    labels.bin      int32, -1 without one                               prompts.bin   int32, tokens before the last completion
    contents.bin    uint64, hash of all that the objective read         inputs.bin    uint64, hash of the input (text or prompt) alone
    positions.bin   int64, file << 40 | line                            groups.bin    int32 a role, only where meta has "groups"
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]
Supervision = Literal["all", "none", "mask"]

META = "meta.json"
LINE_BITS = 40
_COLUMNS: dict[str, np.dtype[Any]] = {
    "counts": np.dtype("<i4"),
    "labels": np.dtype("<i4"),
    "prompts": np.dtype("<i4"),
    "contents": np.dtype("<u8"),
    "inputs": np.dtype("<u8"),
    "positions": np.dtype("<i8"),
}
_FLUSH_ROWS = 65536


class Encoded(NamedTuple):
    """One row as a model sees it."""

    tokens: Ints
    supervised: Bools | None = None
    """Which tokens are predicted and counted in the loss; None: as the writer's `supervision` says."""
    label: int = -1
    prompt_length: int = 0
    """Tokens before the last completion: what a generation starts from."""
    content: int = 0
    input: int = 0


class RowSetWriter:
    """Streams rows into a part's folder, which must exist and be empty. The part is whole once `close` wrote meta.json.

    vocabulary: number of token ids; decides between two and four bytes a token.
    """

    def __init__(self, folder: Path, *, vocabulary: int, supervision: Supervision, groups: int = 0) -> None:
        self._folder = folder
        self._supervision = supervision
        self._dtype = np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")
        self._tokens = (folder / "tokens.bin").open("wb")
        self._offsets = (folder / "offsets.bin").open("wb")
        self._mask: BinaryIO | None = (folder / "supervised.bin").open("wb") if supervision == "mask" else None
        self._groups: BinaryIO | None = (folder / "groups.bin").open("wb") if groups else None
        self._columns = {name: (folder / f"{name}.bin").open("wb") for name in _COLUMNS}
        self._pending: list[tuple[int, int, int, int, int, int]] = []
        self._lengths: list[int] = []
        self._end = 0
        self.rows = 0
        self.supervised = 0
        self._offsets.write(np.zeros(1, "<i8").tobytes())

    def write(self, row: Encoded, *, file: int = 0, line: int = 0, groups: Sequence[int] = ()) -> None:
        """Append one row; `file` is an index into the source's files, `line` counts from 1, `groups` are indexes into meta's, one a role."""
        length = len(row.tokens)
        self._tokens.write(row.tokens.astype(self._dtype).tobytes())
        if self._mask is not None:
            mask = np.ones(length, np.bool_) if row.supervised is None else row.supervised
            self._mask.write(mask.astype(np.uint8).tobytes())
            count = int(mask.sum())
        else:
            count = length if self._supervision == "all" else 0
        if self._groups is not None:
            self._groups.write(np.asarray(groups, "<i4").tobytes())
        self._pending.append((count, row.label, row.prompt_length, row.content, row.input, file << LINE_BITS | line))
        self._lengths.append(length)
        self.rows += 1
        self.supervised += count
        if len(self._pending) >= _FLUSH_ROWS:
            self._flush()

    @property
    def tokens(self) -> int:
        """Tokens written so far."""
        return self._end + sum(self._lengths)

    def close(self, **meta: Any) -> None:
        """Write what is left and meta.json, with `meta` added to it."""
        self._flush()
        self._close_files()
        document = {"rows": self.rows, "tokens": self._end, "dtype": self._dtype.str, "supervision": self._supervision, **meta}
        (self._folder / META).write_text(json.dumps(document), encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close_files()

    def _flush(self) -> None:
        if not self._pending:
            return
        offsets = self._end + np.cumsum(np.asarray(self._lengths, "<i8"))
        self._end = int(offsets[-1])
        self._offsets.write(offsets.astype("<i8").tobytes())
        for (name, dtype), values in zip(_COLUMNS.items(), zip(*self._pending, strict=True), strict=True):
            self._columns[name].write(np.asarray(values, dtype).tobytes())
        self._pending.clear()
        self._lengths.clear()

    def _close_files(self) -> None:
        for stream in (self._tokens, self._offsets, self._mask, self._groups, *self._columns.values()):
            if stream is not None:
                stream.close()


class Part:
    """One folder that a RowSetWriter closed, mapped into memory.

    files: the names of the files that its positions count. labels: the stage's classes; the part's own label numbers, which count
    meta's `labels`, are translated to them (KeyError for one that isn't there).
    """

    def __init__(self, folder: Path, files: Sequence[str] = (), labels: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.files = tuple(files)
        self.meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        self.rows: int = self.meta["rows"]
        self.supervision: Supervision = self.meta["supervision"]
        self.tokens = _map(folder / "tokens.bin", np.dtype(self.meta["dtype"]), self.meta["tokens"])
        self.offsets = _map(folder / "offsets.bin", np.dtype("<i8"), self.rows + 1)
        self.mask = _map(folder / "supervised.bin", np.dtype("u1"), self.meta["tokens"]) if self.supervision == "mask" else None
        self.group_names: dict[str, list[str]] = self.meta.get("groups", {})
        flat = _map(folder / "groups.bin", np.dtype("<i4"), self.rows * len(self.group_names)) if self.group_names else None
        self.groups = None if flat is None else flat.reshape(self.rows, -1)
        self.columns = {name: _map(folder / f"{name}.bin", dtype, self.rows) for name, dtype in _COLUMNS.items()}
        if labels is not None:
            number = {label: index for index, label in enumerate(labels)}
            known = np.asarray([number[label] for label in self.meta.get("labels", [])], np.int32)
            self.columns["labels"] = known[self.columns["labels"]]


def is_whole(folder: Path) -> bool:
    """Whether every file of a part has the size that its meta.json tells; nothing is read."""
    try:
        Part(folder)
    except (ValueError, KeyError, OSError):
        return False
    return True


def _map(path: Path, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    if path.stat().st_size != count * dtype.itemsize:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, expected {count * dtype.itemsize}")
    # An empty file can't be mapped.
    return np.memmap(path, dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)


class RowSet:
    """Rows of one or more parts, by number from 0. `index`: rows of the parts laid end to end; None is all of them."""

    def __init__(self, parts: Sequence[Part], index: Longs | None = None) -> None:
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *(part.rows for part in self.parts)])
        self._index = index
        self._lengths: Ints | None = None

    @classmethod
    def open(cls, *folders: Path) -> RowSet:
        """All rows of these parts."""
        return cls([Part(folder) for folder in folders])

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._index is None else len(self._index)

    def subset(self, rows: npt.NDArray[Any]) -> RowSet:
        """A view of these rows of this set, in this order; a row may come more than once."""
        rows = np.asarray(rows, np.int64)
        return RowSet(self.parts, rows if self._index is None else self._index[rows])

    @property
    def lengths(self) -> Ints:
        """Tokens of each row, int32 [rows]."""
        if self._lengths is None:
            every = [np.diff(part.offsets).astype(np.int32) for part in self.parts]
            self._lengths = self._select(every, np.dtype(np.int32))
        return self._lengths

    @property
    def labels(self) -> Ints:
        """Class of each row, int32 [rows]; -1 without one."""
        return self._column("labels")

    @property
    def supervised_counts(self) -> Ints:
        """Supervised tokens of each row, int32 [rows]."""
        return self._column("counts")

    @property
    def contents(self) -> Hashes:
        """Content hash of each row, uint64 [rows]."""
        return self._column("contents")

    @property
    def inputs(self) -> Hashes:
        """Hash of each row's input (text or prompt), uint64 [rows]."""
        return self._column("inputs")

    @property
    def copies(self) -> Bools:
        """Whether each row is an augmented copy of the row before it, bool [rows]: from the same line, with the same input hash."""
        every = []
        for part in self.parts:
            same = [np.diff(part.columns[name].astype(np.int64)) == 0 for name in ("positions", "inputs")]
            every.append(np.concatenate([np.zeros(min(1, part.rows), np.bool_), same[0] & same[1]]))
        return self._select(every, np.dtype(np.bool_))

    @cached_property
    def group_names(self) -> dict[str, list[str]]:
        """Domains and confounders of these parts, by role, sorted; empty where rows have none."""
        roles = dict.fromkeys(role for part in self.parts for role in part.group_names)
        return {role: sorted({name for part in self.parts for name in part.group_names.get(role, [])}) for role in roles}

    def groups(self, i: int) -> list[int]:
        """The row's domain and confounder, indexes into group_names, in its order of roles."""
        part, row = self._find(i)
        if part.groups is None:
            return []
        own = zip(self._group_numbers.items(), part.groups[row].tolist(), strict=True)
        return [numbers[part.group_names[role][value]] for (role, numbers), value in own]

    @cached_property
    def _group_numbers(self) -> dict[str, dict[str, int]]:
        return {role: {name: number for number, name in enumerate(names)} for role, names in self.group_names.items()}

    @property
    def sources(self) -> Ints:
        """Which part each row is from, int32 [rows]."""
        every = np.repeat(np.arange(len(self.parts), dtype=np.int32), [part.rows for part in self.parts])
        return every if self._index is None else every[self._index]

    def tokens(self, i: int) -> Ints:
        """Token ids, int32 [length]."""
        part, row = self._find(i)
        return np.asarray(part.tokens[part.offsets[row] : part.offsets[row + 1]], np.int32)

    def supervised(self, i: int) -> Bools:
        """Which tokens are predicted and counted in the loss, bool [length].

        Causal language modelling: all. Masked: those that may be masked (no special tokens). Supervised: completions and their end
        tokens. Classification: none.
        """
        part, row = self._find(i)
        start, end = int(part.offsets[row]), int(part.offsets[row + 1])
        if part.mask is not None:
            return np.asarray(part.mask[start:end], np.bool_)
        return np.full(end - start, part.supervision == "all")

    def label(self, i: int) -> int:
        """The class, an index into the stage's labels; -1 without one."""
        return self._value("labels", i)

    def prompt_length(self, i: int) -> int:
        """Tokens before the last completion: `tokens(i)[:prompt_length(i)]` is what a generation starts from."""
        return self._value("prompts", i)

    def id(self, i: int) -> str:
        """16 hexadecimal digits of the content's hash: the same for the same content, wherever it stands."""
        return f"{self._value('contents', i):016x}"

    def where(self, i: int) -> str:
        """File and line (row of a parquet file) of a row, for messages: `train.jsonl:12`."""
        part, row = self._find(i)
        position = int(part.columns["positions"][row])
        file, line = position >> LINE_BITS, position & ((1 << LINE_BITS) - 1)
        return f"{part.files[file] if file < len(part.files) else part.folder}:{line}"

    def _find(self, i: int) -> tuple[Part, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        row = i if self._index is None else int(self._index[i])
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.parts[number], row - int(self._starts[number])

    def _value(self, column: str, i: int) -> int:
        part, row = self._find(i)
        return int(part.columns[column][row])

    def _column(self, name: str) -> npt.NDArray[Any]:
        return self._select([part.columns[name] for part in self.parts], _COLUMNS[name])

    def _select(self, every: list[npt.NDArray[Any]], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        whole = every[0] if len(every) == 1 else np.concatenate(every) if every else np.empty(0, dtype)
        return whole if self._index is None else whole[self._index]
