"""The rows of a Parquet file: selected columns, in batches bounded by the size of their text.

A few bytes of Parquet can expand to gigabytes of text: a dictionary holds one long value, and every row refers to it.
Columns of such text are read dictionary-encoded, and a batch is cut before its values are expanded. Columns with only
short values are read without dictionaries: a dictionary of unique keys would take as long as all the rest.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import pyarrow.parquet as pq

from batch_scoring.ingest.formats.rows import BATCH_BYTES, FileRows, Rows, is_text, longest, pieces
from batch_scoring.storage import parquet

_GROWTH = 2
"""How much larger than the inspected row groups another group's column may be and still count as the same kind.
Only a file crafted to deceive has a column of equal size but longer values in a later group."""


class ParquetRows(FileRows):
    """The rows of an open Parquet file."""

    is_text = False

    def __init__(self, stream: BinaryIO, columns: Iterable[str] | None = None) -> None:
        """Read the footer.

        Args:
            stream: the open file.
            columns: columns to read; all if None.
        """
        self._stream = stream
        self._footer = parquet.open_file(stream)
        self.schema = self._footer.schema_arrow
        wanted = self.schema.names if columns is None else set(columns)
        self._wanted = [name for name in self.schema.names if name in wanted]
        self._groups = [self._footer.metadata.row_group(index) for index in range(self._footer.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum([group.num_rows for group in self._groups])]).astype(np.int64)
        self._position = 0

    @property
    def share(self) -> float:
        """Fraction of the file that has been read."""
        return self._position / max(self._count(), 1)

    def _count(self) -> int:
        return int(self._starts[-1])

    def _read(self, start: int, stop: int) -> Iterator[Rows]:
        stop = min(stop, self._count())
        first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
        if stop <= start:
            return
        position = int(self._starts[first])
        groups = list(range(first, last + 1))
        most = int(BATCH_BYTES / max(1.0, *(self._bytes_per_row(self._groups[index]) for index in groups)))
        rows = max(min(self.batch_rows, most), 1)
        for batch in self._file.iter_batches(rows, row_groups=groups, columns=self._wanted, use_threads=False):
            begin, end = max(start - position, 0), min(stop - position, batch.num_rows)
            number = position + begin + 1
            position = self._position = position + batch.num_rows
            for piece in pieces(batch.slice(begin, max(end - begin, 0))):
                yield Rows(piece, np.arange(number, number + piece.num_rows))
                number += piece.num_rows

    def _bytes_per_row(self, group: pq.RowGroupMetaData) -> float:
        """Uncompressed size of the selected columns as stored; for text without a dictionary, its full size."""
        sizes = (column.total_uncompressed_size for column in _columns(group) if column.path_in_schema in self._wanted)
        return float(sum(sizes) / max(group.num_rows, 1))

    @functools.cached_property
    def _file(self) -> pq.ParquetFile:
        """Open the file, with dictionary encoding for the columns whose text may be long."""
        names = [name for name in self._wanted if is_text(self.schema.field(name).type) and self._may_be_long(name)]
        return parquet.open_file(self._stream, names) if names else self._footer

    def _may_be_long(self, name: str) -> bool:
        """Whether a batch of a column could be too large if all its values were the longest in their dictionary."""
        known = 0
        for index, group in enumerate(self._groups):
            [column] = (column for column in _columns(group) if column.path_in_schema == name)
            rows, size = min(group.num_rows, self.batch_rows), column.total_uncompressed_size
            if column.has_dictionary_page and rows * size > BATCH_BYTES and size > _GROWTH * known:
                if rows * self._longest(index, name) > BATCH_BYTES:
                    return True
                known = size
        return False

    def _longest(self, group: int, name: str) -> int:
        """Return the bytes of the longest dictionary value of a group's column; reads only its first pages."""
        file = parquet.open_file(self._stream, [name], is_read_on=False)
        batch = next(file.iter_batches(1, row_groups=[group], columns=[name], use_threads=False))
        return longest(batch.column(0))


def _columns(group: pq.RowGroupMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    return (group.column(index) for index in range(group.num_columns))
