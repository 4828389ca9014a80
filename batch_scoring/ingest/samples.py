"""Training samples: rows accepted and rejected as those of a day are, with columns that training alone knows.

A sample has what the landing files have, and beside it the label, perhaps the day of each row in `dt`, and whatever
else the training code looks at. `training.py` is the door to it.
"""

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.spec import Csv
from batch_scoring.errors import ContractError, UnreadableFileError
from batch_scoring.ingest import landing_files, quarantine
from batch_scoring.ingest.formats.rows import ALL_ROWS, Rows
from batch_scoring.ingest.key_index import KeyIndex
from batch_scoring.ingest.quarantine import Rejected
from batch_scoring.ingest.schema import casting
from batch_scoring.ingest.schema.compiled import Column
from batch_scoring.ingest.schema.contract import Contract, Rejections
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.folder import FileVersion, Folder

if TYPE_CHECKING:
    import pandas as pd

Sample: TypeAlias = Union[pa.Table, "pd.DataFrame", str, Path, Sequence[str | Path]]
"""A table, or files of any landing format: one, several, or a folder of them."""

DAY = "dt"
"""The column with the day of each row; of files in folders `dt=YYYY-MM-DD`, their folder's."""

NAME = "the sample"
"""A table as messages name it."""

_PLACE = ["\0source_file", "\0row_number"]
"""Columns of a row's place; a sample that is a published table has columns of these names without the \\0."""

_GUESSES = (pa.int64(), pa.float64(), pa.bool_())
"""Types of the columns of a CSV file that the contract does not type, in the order in which they are tried."""


@dataclass(frozen=True)
class SampleRows:
    """The rows of a sample, in its order."""

    accepted: pa.Table
    """Rows that a day's scoring would accept: the columns that it keeps, typed."""
    others: pa.Table
    """All other columns of the same rows; `dt` as dates."""
    places: pa.Table
    """Where each of them was read: `source_file`, empty for a table, and `row_number`."""
    rejected: pa.Table
    """The other rows, as in the quarantine."""


def read(sample: Sample, contract: Contract, csv: Csv) -> SampleRows:
    """Read and validate a sample.

    Equal keys are duplicates on one day only, as in scoring.

    Raises:
        ContractError: it lacks a column, has it with another type, or is no table.
        UnreadableFileError: a file is not complete, or there is none.
    """
    found = _Found(contract, csv)
    if isinstance(sample, pa.Table) or type(sample).__name__ == "DataFrame":
        found.add_table(_with_whole_numbers(table_of(sample), contract))
        return found.rows()
    paths = [sample] if isinstance(sample, str | Path) else list(sample)
    files = [each for path in paths for each in _files(str(path))]
    for place in sorted(range(len(files)), key=lambda place: files[place][1].modified, reverse=True):
        found.add_file(place, *files[place])  # newest first: of equal keys, the first is accepted
    return found.rows()


@dataclass(frozen=True)
class _Part:
    """Accepted rows of one block."""

    file: int
    """Place of its file among all."""
    accepted: pa.RecordBatch
    others: pa.Table
    """With `_PLACE`."""


class _Found:
    """The rows of a sample, as they are read."""

    def __init__(self, contract: Contract, csv: Csv) -> None:
        self._contract, self._csv = contract, csv
        self._parts: list[_Part] = []
        self._rejected: list[Rejected] = []
        self._seen: defaultdict[date | None, KeyIndex] = defaultdict(KeyIndex)
        """Keys by day."""
        self._texts: set[str] = set()
        """Columns of CSV files that the contract does not type."""

    def add_table(self, table: pa.Table) -> None:
        """Validate a table."""
        self._contract.unexpected(table.schema, NAME, is_text=False)
        start = 0
        for batch in table.combine_chunks().to_batches():
            numbers = np.arange(start + 1, start + batch.num_rows + 1)
            self._add(0, Rows(batch, numbers), "", None, is_text=False)
            start += batch.num_rows

    def add_file(self, place: int, folder: Folder, file: FileVersion) -> None:
        """Read and validate a file."""
        where = f"{folder.uri}/{file.path}"
        with landing_files.open_rows(folder, file, self._csv, columns=()) as rows:
            strange = self._contract.unexpected(rows.schema, where, is_text=rows.is_text)
            types = {name: rows.schema.field(name).type for name in strange}
        wanted = {name: Column(name, kind, True) for name, kind in types.items() if not pa.types.is_nested(kind)}
        with landing_files.open_rows(folder, file, self._csv, {**self._contract.columns, **wanted}) as rows:
            unused = [name for name in self._contract.columns if name not in self._contract.arrow_schema.names]
            self._texts.update([*wanted, *unused] if rows.is_text else ())
            for block in rows.read(0, ALL_ROWS):
                self._add(place, block, where, _day_of(where), is_text=rows.is_text)

    def _add(self, place: int, block: Rows, where: str, day: date | None, *, is_text: bool) -> None:
        key = self._contract.key
        others = self._others(block, where, day, is_text=is_text)
        result = self._contract.validate(block.batch, is_text=is_text)
        keys, positions = result.accepted.column(key), result.positions
        first = self._first(keys, others[DAY].take(pa.array(positions)) if DAY in others.column_names else None)
        repeated = np.flatnonzero(~first)
        result.rejected.add("duplicate", "key_is_unique", key, positions[repeated], keys, repeated)
        self._reject(block, result.rejected, where)
        kept = others.take(pa.array(positions[first]))
        self._parts.append(_Part(place, result.accepted.filter(pa.array(first)), kept))

    def _others(self, block: Rows, where: str, day: date | None, *, is_text: bool) -> pa.Table:
        """The columns that scoring does not keep, and the row's place."""
        batch = block.batch
        names = [name for name in batch.schema.names if name not in self._contract.arrow_schema.names]
        found = pa.Table.from_batches([batch]).select(names)
        for index, name in enumerate(names if is_text else ()):
            texts, _ = casting.decode(batch.column(name))
            found = found.set_column(index, name, texts)
        if DAY in names:
            found = found.set_column(names.index(DAY), DAY, _days(found[DAY], where or NAME))
        elif day is not None:
            found = found.append_column(DAY, pa.repeat(pa.scalar(day, pa.date32()), batch.num_rows))
        place = [pa.repeat(where, batch.num_rows), pa.array(block.numbers)]
        return pa.Table.from_arrays([*found.columns, *place], names=[*found.column_names, *_PLACE])

    def _first(self, keys: pa.Array, days: pa.ChunkedArray | None) -> np.ndarray:
        """bool[rows]: whether each key is the first of its day."""
        if days is None:
            return self._seen[None].add(keys)
        first = np.zeros(len(keys), bool)
        coded = days.combine_chunks().dictionary_encode()
        codes = coded.indices.to_numpy()
        for code, day in enumerate(coded.dictionary.to_pylist()):
            places = np.flatnonzero(codes == code)
            first[places] = self._seen[day].add(keys.take(pa.array(places)))
        return first

    def _reject(self, block: Rows, reasons: Rejections, where: str) -> None:
        known = block.batch.select([*self._contract.columns])
        self._rejected += (quarantine.from_broken(row, where) for row in block.broken)
        self._rejected += quarantine.from_rows(known, block.numbers, reasons, self._contract.key, where)

    def rows(self) -> SampleRows:
        """All rows, in the order of the files.

        Raises:
            ContractError: there are none, or the files do not belong together.
        """
        if not self._parts:
            raise ContractError(f"{NAME} has no rows")
        parts = sorted(self._parts, key=lambda part: part.file)
        accepted = pa.Table.from_batches([part.accepted for part in parts], self._contract.arrow_schema)
        try:
            others = pa.concat_tables([part.others for part in parts], promote_options="permissive")
        except pa.ArrowException as error:
            raise ContractError(f"the files of {NAME} have a column of several types: {error}") from error
        places = others.select(_PLACE).rename_columns(["source_file", "row_number"])
        others = others.drop_columns(_PLACE)
        for name in sorted(self._texts - {DAY}):
            others = others.set_column(
                others.column_names.index(name), name, _guessed(others[name], self._csv.null_values)
            )
        rejected = quarantine.file_rows(self._rejected, self._contract.key)
        return SampleRows(accepted, others, places, pa.Table.from_batches([rejected]))


def table_of(sample: "pa.Table | pd.DataFrame") -> pa.Table:
    """A table or frame as a table in plain types.

    Raises:
        ContractError: a column has values of several types, or names are not unique.
    """
    try:
        table = sample if isinstance(sample, pa.Table) else pa.Table.from_pandas(sample, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise ContractError(f"{NAME} cannot be a table: {' '.join(map(str, error.args))}") from error
    if twice := [name for name, count in Counter(table.column_names).items() if count > 1]:
        raise ContractError(f"{NAME} has two columns {', '.join(twice)}")
    return table.replace_schema_metadata(None)


def _with_whole_numbers(table: pa.Table, contract: Contract) -> pa.Table:
    """The table with integers where pandas, which has none with missing values, made floats of them."""
    for index, name in enumerate(table.column_names):
        declared = contract.columns.get(name)
        if declared and pa.types.is_integer(declared.type) and pa.types.is_floating(table[name].type):
            with contextlib.suppress(pa.ArrowInvalid):
                table = table.set_column(index, name, table[name].cast(declared.type))
    return table


def _files(path: str) -> Iterator[tuple[Folder, FileVersion]]:
    """The file at a path, or the data files below it.

    Raises:
        UnreadableFileError: there is none.
    """
    parent, _, name = (path if "://" in path else str(Path(path).expanduser().absolute())).rpartition("/")
    folder = open_folder(parent or "/")
    below = folder.subfolder(name)
    listed = [(folder, file) for file in folder.list(name) if file.path == name]
    listed = listed or [(below, file) for file in landing_files.data_files(below.look())]
    if not listed:
        raise UnreadableFileError(f"{path}: there is no file; expected one, or a folder with some")
    yield from listed


def _day_of(where: str) -> date | None:
    """The day of a file in a folder `dt=YYYY-MM-DD`."""
    found = re.search(r"/dt=(\d{4}-\d\d-\d\d)/", where)
    return date.fromisoformat(found[1]) if found else None


def _days(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Days as dates.

    Raises:
        ContractError: they are none, or one is missing.
    """
    try:
        days = column.cast(pa.date32())
    except pa.ArrowException as error:
        raise ContractError(f"{where}: {DAY} is {column.type}, not the day of each row: {error}") from error
    if days.null_count:
        raise ContractError(f"{where}: {days.null_count} of {len(days)} rows have no day in {DAY}")
    return days


def _guessed(texts: pa.ChunkedArray, nulls: Sequence[str]) -> pa.ChunkedArray:
    """Texts of a CSV file as numbers or booleans, if all of them are; quoted ones may be missing values too."""
    trimmed = pc.utf8_trim_whitespace(texts)
    is_missing = pc.is_in(trimmed, value_set=pa.array(["", *nulls], pa.string()))
    known = pc.if_else(is_missing, pa.scalar(None, pa.string()), trimmed)
    for kind in _GUESSES:
        with contextlib.suppress(pa.ArrowException):
            return known.cast(kind)
    return known
