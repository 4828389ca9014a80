"""The rows of an open landing file in any format: numbered from 1, in batches bounded in rows and in bytes.

`csv_rows.py`, `json_lines.py` and `parquet_rows.py` read them; `schema/contract.py` validates them.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BATCH_ROWS = 131_072
ALL_ROWS = 2**62
"""A row number beyond the end of any file."""
BATCH_BYTES = 32 * 1024 * 1024
"""Maximum size of a batch's cells: each cell may be held several times, typed, as JSON and in a row group."""


@dataclass(frozen=True)
class BrokenRow:
    """A row that could not be parsed into cells."""

    number: int
    detail: str
    text: str
    rule: str = "cells_match_header"


@dataclass(frozen=True)
class BrokenRows(Sequence[BrokenRow]):
    """Rows that could not be parsed, created on access: a block may have a million of them."""

    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64: row numbers, ascending."""
    row: Callable[[int], BrokenRow] = lambda number: BrokenRow(number, "", "")
    """Creates the row with a given number."""

    def __len__(self) -> int:
        """Number of broken rows."""
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> BrokenRow: ...

    @overload
    def __getitem__(self, index: slice) -> "BrokenRows": ...

    def __getitem__(self, index: int | slice) -> "BrokenRow | BrokenRows":
        """Return one broken row, or a slice of them."""
        if isinstance(index, slice):
            return BrokenRows(self.numbers[index], self.row)
        return self.row(int(self.numbers[index]))


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one file."""

    batch: pa.RecordBatch
    """The parsed rows of the selected columns; in a CSV file, every column is binary and unconverted."""
    numbers: np.ndarray
    """int64: the number of each row, from 1."""
    broken: BrokenRows = BrokenRows()

    def __len__(self) -> int:
        """Number of rows, including broken ones."""
        return int(self.batch.num_rows) + len(self.broken)

    def between(self, start: int, stop: int) -> "Rows":
        """Return the rows with start < number <= stop."""
        first, last = np.searchsorted(self.numbers, [start, stop], side="right")
        begin, end = np.searchsorted(self.broken.numbers, [start, stop], side="right")
        return Rows(self.batch.slice(first, last - first), self.numbers[first:last], self.broken[begin:end])


class FileRows(ABC):
    """The rows of one open file."""

    schema: pa.Schema
    """All columns of the file."""
    batch_rows = BATCH_ROWS
    is_text: bool
    """Whether cells are bytes that have yet to be cast."""
    explain: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    refuse_changed: Callable[[], None] = staticmethod(lambda: None)
    """Raise FileChangedError if the file was modified after it was opened: what was read may be inconsistent."""

    def count(self) -> int:
        """Count all rows, including broken ones. Reads a text file to its end."""
        with self.explain():
            return self._count()

    def read(self, start: int, stop: int) -> Iterator[Rows]:
        """Yield rows start + 1 … stop, at most `batch_rows` at a time. Successive calls must move forward."""
        with self.explain():
            yield from self._read(start, stop)

    @property
    @abstractmethod
    def share(self) -> float:
        """Fraction of the file that has been read, from 0 to 1, for progress."""

    @abstractmethod
    def _count(self) -> int: ...

    @abstractmethod
    def _read(self, start: int, stop: int) -> Iterator[Rows]: ...


def pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield a batch in as many parts as needed to keep the expanded text of each within `BATCH_BYTES`."""
    if batch.num_rows * sum(map(longest, batch.columns)) <= BATCH_BYTES:
        yield batch.slice()
        return
    ends = np.cumsum(sum(map(_sizes, batch.columns)))
    start = 0
    while start < batch.num_rows:
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + BATCH_BYTES, side="right")), start + 1)
        yield batch.slice(start, stop - start)
        start = stop


def longest(column: pa.Array) -> int:
    """Return the bytes of the longest text that a column can hold; 0 if its cells have a fixed width."""
    values = column.dictionary if pa.types.is_dictionary(column.type) else column
    return pc.max(pc.binary_length(values)).as_py() or 0 if is_text(values.type) else 0


def _sizes(column: pa.Array) -> np.ndarray:
    """int64: bytes of the expanded text of each cell."""
    if pa.types.is_dictionary(column.type):
        places = column.indices.fill_null(len(column.dictionary)).to_numpy(zero_copy_only=False)
        sizes: np.ndarray = np.append(_sizes(column.dictionary), 0)[places]
        return sizes
    if not is_text(column.type):
        return np.zeros(len(column), np.int64)
    lengths: np.ndarray = pc.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text or bytes of variable length."""
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)
