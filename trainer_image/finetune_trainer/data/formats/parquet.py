"""Parquet, read in batches of its row groups; places are row numbers, counted from 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune_trainer.data.formats.record import FileProblem, Record, listed

_BATCH_ROWS = 512
_BUFFER = 1 << 20


def read(path: Path, columns: Sequence[str], notes: list[str]) -> Iterator[Record]:
    """One record a row, with the columns that are needed only."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Buffered: a row group may be as large as the file.
        with pq.ParquetFile(path, buffer_size=_BUFFER) as file:
            have = file.schema_arrow.names
            wanted = [name for name in columns if name in have]
            if not wanted and file.metadata.num_rows:
                raise FileProblem(
                    f"the file has none of the columns {listed(columns)}; it has {listed(have)}; name the right one in data.columns"
                )
            share = path.stat().st_size // max(file.metadata.num_rows, 1)
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(number, row, None, share)
    except pa.ArrowException as error:
        raise FileProblem(f"is not a whole parquet file: {str(error).splitlines()[0]}") from None
