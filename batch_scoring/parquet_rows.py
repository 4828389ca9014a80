"""The rows of a Parquet file: of the columns that are asked for, in batches that are bounded by what their text takes.

A few bytes of Parquet can be gigabytes of text: a dictionary holds one long value, and every row refers to it. So text
that has a dictionary is read with it, and a batch is cut before anybody writes the values out.
"""

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch_scoring import parquet
from batch_scoring.rows import BATCH_BYTES, FileRows, Rows, pieces


class ParquetRows(FileRows):
    """The rows of an open Parquet file."""

    is_text = False

    def __init__(self, stream: BinaryIO, columns: Iterable[str] | None = None) -> None:
        """Read the footer.

        Args:
            stream: the open file.
            columns: those that are wanted; all if None.
        """
        footer = parquet.open_file(stream)
        self.schema = footer.schema_arrow
        wanted = self.schema.names if columns is None else set(columns)
        self._wanted = [name for name in self.schema.names if name in wanted]
        self._file = parquet.open_file(stream, dictionary=filter(self._is_text, self._wanted))
        groups = [footer.metadata.row_group(index) for index in range(footer.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum([group.num_rows for group in groups])]).astype(np.int64)
        self._row_bytes = [self._bytes_per_row(group) for group in groups]
        self._position = 0

    @property
    def share(self) -> float:
        """How much of the file has been read."""
        return self._position / max(self._count(), 1)

    def _is_text(self, name: str) -> bool:
        kind = self.schema.field(name).type
        return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))

    def _bytes_per_row(self, group: pq.RowGroupMetaData) -> float:
        """Of the wanted columns as they are stored, uncompressed: of text without a dictionary all that it takes."""
        columns = (group.column(index) for index in range(group.num_columns))
        wanted = set(self._wanted)
        sizes = (c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] in wanted)
        return sum(sizes) / max(group.num_rows, 1)

    def _count(self) -> int:
        return int(self._starts[-1])

    def _read(self, start: int, stop: int) -> Iterator[Rows]:
        stop = min(stop, self._count())
        first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
        if stop <= start:
            return
        position = int(self._starts[first])
        groups = list(range(first, last + 1))
        most = int(BATCH_BYTES / max(1.0, *(self._row_bytes[group] for group in groups)))
        rows = max(min(self.batch_rows, most), 1)
        for batch in self._file.iter_batches(rows, row_groups=groups, columns=self._wanted, use_threads=False):
            begin, end = max(start - position, 0), min(stop - position, batch.num_rows)
            number = position + begin + 1
            position = self._position = position + batch.num_rows
            for piece in pieces(batch.slice(begin, max(end - begin, 0))):
                yield Rows(piece, np.arange(number, number + piece.num_rows))
                number += piece.num_rows
