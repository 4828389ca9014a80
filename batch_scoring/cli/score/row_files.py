"""Files of record batches: Parquet as in the tables, or CSV as the spec declares it."""

import contextlib
import gzip
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv

from batch_scoring.config.spec import Csv
from batch_scoring.storage import parquet


@contextlib.contextmanager
def writing(
    file: Path, form: str, schema: pa.Schema, csv: Csv, dictionary: Iterable[str] = ()
) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Write a file; the same rows give the same bytes.

    Args:
        file: to write.
        form: .parquet, .csv or .csv.gz.
        schema: of the rows; its metadata is stored in the footer of a Parquet file.
        csv: the dialect; its delimiter separates cells.
        dictionary: columns with few distinct values; only they are worth a dictionary.

    Yields:
        The function that appends rows.
    """
    if form == ".parquet":
        with contextlib.closing(parquet.Writer(file, schema, dictionary)) as writer:
            yield writer.write
        return
    options = pa.csv.WriteOptions(delimiter=csv.delimiter)
    with contextlib.ExitStack() as stack:
        sink: BinaryIO | gzip.GzipFile = stack.enter_context(file.open("wb"))
        if form == ".csv.gz":  # no name and no time in its header
            sink = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=1, fileobj=sink, mtime=0))
        text = stack.enter_context(pa.csv.CSVWriter(sink, schema, write_options=options))
        yield lambda batch: text.write_batch(batch.cast(schema))  # it knows no dictionaries
