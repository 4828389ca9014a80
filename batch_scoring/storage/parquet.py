"""Parquet files as this project writes and reads them: its settings decide how long a day takes.

Seconds of CPU a million rows of eight columns, measured one by one on the validated features of customer_churn:
dictionaries for all columns, the writer's default, 0.30; only for those with few values 0.26; integers as differences
(DELTA_BINARY_PACKED, half as long to read back too) 0.18; constants that come as dictionaries and columns that are
declared to hold no nulls 0.15. The smallest and largest float of a row group tell a reader nothing, and cost 0.01.
zstd costs 0.02 over snappy and saves a third of the bytes.
"""

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

READ_ROWS = 65_536
"""Rows of a record batch. With twice as many ten million rows take a twentieth less time, and 40 MB more; one million
take half as much more: memory that is touched for the first time costs more than all that is done with it."""

_GROUP_ROWS = 131_072
"""Rows of a row group, at least, but for the last one."""

_FIRST_BYTES = 64 * 1024
"""Read at a time where only the first rows of a column are wanted."""

_GROUP_BYTES = 32 * 1024**2
"""Of rows that wait for a row group: it is then written with fewer rows. Rows of ordinary width never come that far."""

_PAGE_BYTES = 4 * 1024**2
"""One page a column and row group: at the writer's default of a megabyte a page is an eighth slower to write."""


class Writer:
    """A file while it is written."""

    def __init__(self, file: Path, schema: pa.Schema, dictionary: Iterable[str] = ()) -> None:
        """Begin a file.

        Args:
            file: to write.
            schema: of the rows; its metadata stands in the footer.
            dictionary: columns with few distinct values: only they are worth a dictionary. Text among them may come
                dictionary-encoded already.
        """
        few = set(dictionary)
        self._schema = pa.schema(
            [
                field.with_type(pa.dictionary(pa.int32(), field.type))
                if field.name in few and pa.types.is_string(field.type)
                else field
                for field in schema
            ]
        )
        differences = [field.name for field in schema if pa.types.is_integer(field.type) and field.name not in few]
        self._writer = pq.ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=sorted(few),
            column_encoding=dict.fromkeys(differences, "DELTA_BINARY_PACKED") or None,
            data_page_size=_PAGE_BYTES,
            max_rows_per_page=_GROUP_ROWS,
            write_statistics=[field.name for field in schema if not pa.types.is_floating(field.type)],
            store_schema=False,
        )
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0
        if schema.metadata:
            self.describe(schema.metadata)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows: the schema's columns, in any order.

        Raises:
            ArrowInvalid: a column that may hold none has a null; at the latest when the file is closed.
        """
        columns = [_as(batch.column(field.name), field.type) for field in self._schema]
        self._waiting.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._bytes += self._waiting[-1].nbytes
        if sum(map(len, self._waiting)) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._write_group()

    def describe(self, metadata: dict[bytes, bytes] | dict[bytes, str]) -> None:
        """Add to the footer."""
        self._writer.add_key_value_metadata(metadata)

    def close(self) -> None:
        """End the file."""
        try:
            if self._waiting:
                self._write_group()
        finally:
            self._writer.close()

    def _write_group(self) -> None:
        group, self._waiting, self._bytes = pa.Table.from_batches(self._waiting, self._schema), [], 0
        # text whose batches have dictionaries of their own would be written without one
        self._writer.write_table(group.unify_dictionaries(), max(len(group), 1))


@functools.lru_cache(maxsize=4)
def constant(value: str | pa.Scalar, rows: int) -> pa.Array:
    """A column with one value in all rows, often the same as before. Text has a dictionary."""
    if not isinstance(value, str):
        return pa.repeat(value, rows)
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([value], pa.string()))


def open_file(
    stream: BinaryIO | pa.NativeFile, dictionary: Iterable[str] = (), *, is_read_on: bool = True
) -> pq.ParquetFile:
    """Open a file as all are read here, ours and others'.

    Checksums of pages are verified where they stand; 96-bit times are read as microseconds, as nanoseconds they wrap
    around beyond 1677 and 2262. `pre_buffer` would keep the whole file's compressed bytes, and Arrow's threads that let
    go of Python's bytes can abort a short process at its exit.

    Args:
        stream: the open file.
        dictionary: text columns to leave dictionary-encoded.
        is_read_on: whether a column is read to its end; if not, it is not fetched whole for its first rows.
    """
    return pq.ParquetFile(
        stream,
        pre_buffer=False,
        buffer_size=0 if is_read_on else _FIRST_BYTES,
        read_dictionary=list(dictionary),
        coerce_int96_timestamp_unit="us",
        page_checksum_verification=True,
    )


def read(
    stream: BinaryIO | pa.NativeFile,
    columns: list[str] | None = None,
    dictionary: Iterable[str] = (),
    batch_rows: int = READ_ROWS,
) -> Iterator[pa.RecordBatch]:
    """A file's rows, in flat memory.

    Args:
        stream: the open file.
        columns: those to read; all if None.
        dictionary: text columns to leave dictionary-encoded.
        batch_rows: rows of a record batch, at most.
    """
    parquet = open_file(stream, dictionary)
    yield from parquet.iter_batches(batch_rows, columns=columns, use_threads=False)


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    return column.cast(kind)
