"""Files of record batches: Parquet as in the tables, CSV with lists as JSON text, or JSON Lines."""

import contextlib
import gzip
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from batch_scoring.storage import parquet
from batch_scoring.storage.json_text import json_lines, json_text

Form = Literal[".parquet", ".csv.gz", ".csv", ".jsonl"]
FORMS: tuple[Form, ...] = get_args(Form)
"""Endings of the files' names."""

Write = Callable[[pa.RecordBatch], None]

_BLOCK = 2**20
"""Bytes of a CSV that are counted at a time."""

_FORMULA = r"^[\s\v\x{a0}]*[=+\-@＝＋－＠]|^[\t\r\n]"
"""Beginnings of text that a spreadsheet would compute (CWE-1236), also after blanks and in wide characters."""


@contextlib.contextmanager
def writing(
    file: Path,
    form: str,
    schema: pa.Schema,
    delimiter: str = ",",
    dictionary: Iterable[str] = (),
    *,
    for_people: bool = False,
) -> Iterator[Write]:
    """Write a file; the same rows give the same bytes.

    Args:
        file: to write.
        form: one of `FORMS`.
        schema: of the rows; its metadata is stored in the footer of a Parquet file.
        delimiter: between the cells of CSV.
        dictionary: columns of Parquet with few distinct values; only they are worth a dictionary.
        for_people: whether a spreadsheet opens the CSV: text that it would compute as a formula begins with an
            apostrophe, and the file with a byte order mark, without which Excel misreads accents.

    Yields:
        The function that appends rows.
    """
    if form == ".parquet":
        with contextlib.closing(parquet.Writer(file, schema, dictionary)) as writer:
            yield writer.write
        return
    with contextlib.ExitStack() as stack:
        sink: BinaryIO | gzip.GzipFile = stack.enter_context(file.open("wb"))
        if form == ".jsonl":
            yield lambda batch: sink.writelines([json_lines(batch.cast(schema))])
            return
        if form == ".csv.gz":  # no name and no time in its header
            sink = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=1, fileobj=sink, mtime=0))
        if for_people:
            sink.write(b"\xef\xbb\xbf")
        options = pa.csv.WriteOptions(delimiter=delimiter)
        flat = pa.schema([field.with_type(pa.large_string()) if _is_list(field.type) else field for field in schema])
        text = stack.enter_context(pa.csv.CSVWriter(sink, flat, write_options=options))

        def write(batch: pa.RecordBatch) -> None:
            columns = [json_text(column) if _is_list(column.type) else column for column in batch.cast(schema).columns]
            batch = pa.RecordBatch.from_arrays(columns, schema=flat)  # CSV knows neither lists nor dictionaries
            text.write_batch(_without_formulas(batch) if for_people else batch)

        yield write


def count(file: Path, form: str) -> int:
    """Number of rows in a file."""
    if form == ".parquet":
        rows: int = pq.read_metadata(file).num_rows
        return rows
    with gzip.open(file) if form == ".csv.gz" else file.open("rb") as content:
        return sum(1 for _ in content) if form == ".jsonl" else _csv_rows(content)


def _csv_rows(content: BinaryIO | gzip.GzipFile) -> int:
    """Number of rows of a CSV with a header: lines that end outside of quotes. Readers of CSV limit a row's length."""
    rows, is_quoted = -1, False
    while block := content.read(_BLOCK):
        cells = np.frombuffer(block, np.uint8)
        inside = np.logical_xor.accumulate(cells == ord('"')) ^ is_quoted
        rows += int(np.count_nonzero((cells == ord("\n")) & ~inside))
        is_quoted = bool(inside[-1])
    return rows


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _without_formulas(batch: pa.RecordBatch) -> pa.RecordBatch:
    def is_text(kind: pa.DataType) -> bool:
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    columns = [
        pc.replace_substring_regex(column, _FORMULA, r"'\0") if is_text(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
