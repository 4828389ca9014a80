"""The sample of a table, as its files will be read: a local CSV, JSON Lines or Parquet file."""

import contextlib
import gzip
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.spec import Csv
from batch_scoring.errors import SampleError, UnreadableFileError
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.formats.rows import FileRows, Rows
from batch_scoring.ingest.landing_files import ENDINGS
from batch_scoring.ingest.schema import casting
from batch_scoring.ingest.schema.compiled import Column
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.folder import FileVersion, Folder

MOST_ROWS = 200_000
"""Number of first rows that columns are told from, and that the first model is trained on."""

FIRST_ROWS = 1_000
"""Number of first rows that tell whether arrays hold numbers."""

Open: TypeAlias = Callable[[Iterable[str] | Mapping[str, Column] | None], AbstractContextManager[FileRows]]
"""Opens the file with some columns, all if None."""

_FLOATS = pa.list_(pa.field("element", pa.float64()))
"""Of a list of integers, the next one may have others."""
_OTHER_DIALECTS: tuple[dict[str, object], ...] = ({"newlines": True}, {"quote": "none"})
"""Tried if rows of a CSV file cannot be read: line breaks within quotes, and quotes that are ordinary text."""
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Sample:
    """The first rows of a file."""

    file: Path
    rows: pa.Table
    """Text is trimmed, and null where a cell is blank; in a CSV file all columns are text."""
    is_text: bool
    csv: Csv
    """The dialect of a CSV file."""
    unreadable: int = 0
    """Number of rows that cannot be parsed."""
    why_unreadable: str = ""
    """What is wrong with the first of them."""
    nested: tuple[str, ...] = ()
    """Fields of JSON Lines that hold objects, or arrays of others than numbers; they are not in the rows."""


def read(file: Path) -> Sample:
    """Read the first rows of a file.

    Raises:
        SampleError: it is not a data file, or has no rows.
    """
    file = file.expanduser().resolve()
    if not file.is_file():
        raise SampleError(f"--sample {file} is not a file; expected one that ends in {', '.join(ENDINGS)}")
    if not landing_files.is_data(file.name):
        raise SampleError(f"--sample {file}: names that begin with '_' or '.' are not data; rename it")
    folder = open_folder(str(file.parent))
    version = folder.version(file.name)
    if version is None:
        raise SampleError(f"--sample {file} is gone")
    try:
        found = _first_rows(folder, version)
    except UnreadableFileError as error:
        raise SampleError(f"--sample {error}") from error
    if not sum(len(part.batch) for part in found.parts):
        raise SampleError(f"--sample {file}: {found.unreadable or 'no'} rows, and none can be read")
    table = pa.Table.from_batches([part.batch for part in found.parts])
    columns = {name: _text(table[name].combine_chunks(), name, file) for name in table.column_names}
    nested = tuple(name for name in found.names if name not in columns)
    first = next((part.broken[0].detail for part in found.parts if part.broken), "")
    return Sample(file, pa.table(columns), found.is_text, found.csv, found.unreadable, first, nested)


@dataclass(frozen=True)
class _Found:
    """The first rows, in one dialect."""

    csv: Csv
    is_text: bool
    names: tuple[str, ...]
    """Of all columns of the file."""
    parts: tuple[Rows, ...]

    @property
    def unreadable(self) -> int:
        return sum(len(part.broken) for part in self.parts)


def _first_rows(folder: Folder, version: FileVersion) -> _Found:
    """Read the first rows; those of a CSV file in the dialect that loses the fewest."""
    plain = Csv(delimiter=_delimiter(Path(folder.uri) / version.path))
    found = [_read(folder, version, plain)]
    for other in _OTHER_DIALECTS if found[0].is_text and found[0].unreadable else ():
        with contextlib.suppress(UnreadableFileError):
            found.append(_read(folder, version, plain.model_copy(update=other)))
    return min(found, key=lambda each: each.unreadable)


def _read(folder: Folder, version: FileVersion, csv: Csv) -> _Found:
    opened = partial(landing_files.open_rows, folder, version, csv)
    with opened(_columns(opened)) as rows:
        return _Found(csv, rows.is_text, tuple(rows.schema.names), tuple(rows.read(0, MOST_ROWS)))


def _columns(opened: Open) -> dict[str, Column] | None:
    """Return the columns to read, if some are lists of numbers, which JSON Lines are not read with by themselves."""
    with opened(()) as rows:
        types = {field.name: field.type for field in rows.schema}
    lists = [name for name, kind in types.items() if casting.kind_of(kind) == "list of numbers"]
    if not lists:
        return None
    floats = {name: Column(name, _FLOATS, nullable=True) for name in lists}
    vectors = {name: column for name, column in floats.items() if _fits(opened, column)}
    single = {name: Column(name, kind, nullable=True) for name, kind in types.items() if not pa.types.is_nested(kind)}
    return {name: (single | vectors)[name] for name in types if name in single or name in vectors}


def _fits(opened: Open, column: Column) -> bool:
    """Whether most of a column's first lists hold numbers; in JSON Lines, an array's type says only that it is one."""
    with opened({column.name: column}) as rows:
        parts = list(rows.read(0, FIRST_ROWS))
    return sum(len(part.broken) for part in parts) < sum(map(len, parts)) / 2


def _delimiter(file: Path) -> str:
    """Return the delimiter that the header of a CSV file has most often."""
    if ".csv" not in file.suffixes:
        return ","
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        header = re.sub(rb'"[^"]*"', b"", stream.readline(1 << 20)).decode("utf-8", "replace")
    counts = Counter({mark: header.count(mark) for mark in _DELIMITERS})
    return counts.most_common(1)[0][0]


def _text(column: pa.Array, name: str, file: Path) -> pa.Array:
    if pa.types.is_binary(column.type):
        wrong = casting.decode(column)[1]
        if len(wrong):
            raise SampleError(
                f"--sample {file}: {len(wrong)} cells of {name} are not UTF-8, the first one in row {wrong[0] + 1}; "
                "convert the file, for example: iconv -f latin1 -t utf-8"
            )
    return trimmed(column)


def trimmed(column: pa.Array) -> pa.Array:
    """Return a column with its text as the contract sees it: without blanks around it. Blank cells are null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_binary(column.type):
        column, _ = casting.decode(column)
    if casting.kind_of(column.type) == "text":
        texts = casting.trimmed(column.cast(pa.string()), pa.array([""]))
        return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    return column
