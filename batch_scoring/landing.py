"""The day's landing files: which there are, what they hold, and their rows as Arrow record batches.

A file is read in the version that was pinned. Rows are numbered here, from 1, so that each can be accounted for,
also those that cannot be parsed. What a row must look like is `contract.py`'s business.
"""

import collections
import contextlib
import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from batch_scoring.spec import Csv
from batch_scoring.state import LandingFile
from batch_scoring.storage import FileVersion, Folder, former_token
from batch_scoring.streams import Text, Twice

AnyFile = TypeVar("AnyFile", FileVersion, LandingFile, FileVersion | LandingFile)

ENDINGS = (".parquet", ".csv", ".csv.gz")
BATCH_ROWS = 131_072
_HASHED = 1024 * 1024
"""Bytes hashed at a time."""
_CSV_BLOCK = 8 * 1024 * 1024
"""Bytes parsed at a time; also the longest row that a CSV file may have."""

_MEANINGS = (
    ("magic bytes", "it may be truncated or of another format"),
    ("Empty CSV file", "it has no header line"),
    ("straddl", f"a row is longer than {_CSV_BLOCK // 2**20} MiB: there may be a quote that nothing closes"),
    ("codec can't decode", "its header must be UTF-8"),
    ("Expected ", "a row with another number of cells than the header must be UTF-8 to be quarantined"),
    ("header check", "it is not compressed, but its name ends in .gz"),
    ("hrift", "its pages are damaged"),
    ("orrupt", "its pages are damaged"),
)
"""What Arrow and Python say, and what it means to the person who wrote the file."""


class UnreadableFileError(ValueError):
    """A landing file cannot be read; the message names it, what was found and what to do."""


@dataclass(frozen=True)
class BrokenRow:
    """A row that could not be parsed into cells."""

    number: int
    detail: str
    text: str


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one file."""

    batch: pa.RecordBatch
    """The parsed rows; of a CSV file every column is binary, as it stood in the file."""
    numbers: np.ndarray
    """int64: the row number of each, from 1."""
    broken: tuple[BrokenRow, ...] = ()

    def __len__(self) -> int:
        """Rows, broken ones included."""
        return self.batch.num_rows + len(self.broken)


def day_folder(day: str) -> str:
    """The prefix of a day's files in its landing folder and tables."""
    return f"dt={day}/"


def list_day(landing: Folder, day: str) -> list[FileVersion]:
    """The day's data files, sorted by path, those in trouble too. Names that begin with `_` or `.` are not data."""
    return data_files(landing.look(day_folder(day)))


def data_files(listed: Iterable[FileVersion]) -> list[FileVersion]:
    """Those of the files that are data, in their order."""
    return [file for file in listed if is_data(file.path)]


def list_days(landing: Folder) -> dict[str, list[FileVersion]]:
    """The data files of all days, in one listing."""
    found: dict[str, list[FileVersion]] = {}
    for file in landing.look("dt="):
        if is_data(file.path) and ("/" in file.path or file.trouble):
            found.setdefault(file.path.split("/")[0].removeprefix("dt="), []).append(file)
    return found


def is_data(path: str) -> bool:
    """Whether a path is meant to be read: no part of it begins with `_` or `.`."""
    return not any(part.startswith(("_", ".")) for part in path.split("/"))


def in_words(landing: Folder, troubled: Sequence[FileVersion]) -> str:
    """What is wrong with files of a listing."""
    said = [f"{landing.uri}/{file.path}: {file.trouble.reason}" for file in troubled if file.trouble]
    more = [f"and {len(said) - 3} more"] if len(said) > 3 else []
    return "; ".join([*said[:3], *more])


def newest_first(files: Iterable[AnyFile]) -> list[AnyFile]:
    """The order in which files are read: of rows with equal keys the first one's is accepted."""
    return sorted(files, key=lambda file: (file.modified, file.path), reverse=True)


def fingerprint(files: Iterable[FileVersion | LandingFile]) -> str:
    """Names the content of a day: a sha256 over path, version token and size of each file, newest first.

    Their order counts: the same files, one of them uploaded once more, can mean other accepted rows.
    """
    return _digest((file.path, file.token, file.size) for file in newest_first(files))


def is_of(name: str | None, files: Iterable[FileVersion]) -> bool:
    """Whether a fingerprint names just these files; one from before 2026-11 does so by the tokens of that time."""
    ordered = newest_first(files)
    former = ((file.path, former_token(file.token), file.size) for file in ordered)
    return name is not None and name in (fingerprint(ordered), _digest(former))


def _digest(files: Iterable[tuple[str, str, int]]) -> str:
    lines = (f"{path}\0{token}\0{size}\n" for path, token, size in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def inspect(landing: Folder, file: FileVersion, csv: Csv) -> LandingFile:
    """Read what a file is made of; a CSV file is read through, so its end is known to be there.

    Raises:
        UnreadableFileError: it is no whole file of its kind.
        FileChangedError: it was replaced since the listing.
    """
    with open_rows(landing, file, csv) as rows:
        return LandingFile(
            path=file.path, token=file.token, size=file.size, modified=file.modified,
            rows=rows.count(), columns={field.name: str(field.type) for field in rows.schema},
            content=_content(landing, file) if landing.is_local else None,
        )  # fmt: skip


def _content(landing: Folder, file: FileVersion) -> str:
    hasher = hashlib.sha256()
    with landing.open(file.path, file.token) as stream:
        while block := stream.read(_HASHED):
            hasher.update(block)
    return hasher.hexdigest()


@contextlib.contextmanager
def open_rows(
    landing: Folder, file: FileVersion | LandingFile, csv: Csv, batch_rows: int = BATCH_ROWS
) -> Iterator["FileRows"]:
    """Open one pinned version of a landing file; its rows come in batches of at most `batch_rows`.

    Raises:
        UnreadableFileError: it is no whole file of its kind, noticed at the start or while it is read.
        FileChangedError: it is no longer the pinned version, at the start or at the end.
        FileNotFoundError: it is gone.
    """
    with landing.open(file.path, file.token) as stream:
        with _explained(f"{landing.uri}/{file.path}", file):
            rows = _rows(stream, file, csv)
        rows.batch_rows = batch_rows
        rows.explain = lambda: _explained(f"{landing.uri}/{file.path}", file)
        if landing.is_local:  # on S3 every read names the version
            rows.refuse_changed = lambda: landing.open(file.path, file.token).close()
        yield rows
        rows.refuse_changed()


def _rows(stream: BinaryIO, file: FileVersion | LandingFile, csv: Csv) -> "FileRows":
    if file.size == 0:
        raise UnreadableFileError("it is empty (0 bytes); expected a header or a Parquet footer")
    rows: FileRows
    if file.path.endswith(".parquet"):
        rows = _ParquetRows(stream)
    elif file.path.endswith((".csv", ".csv.gz")):
        rows = _CsvRows(stream, csv, file.size, compressed=file.path.endswith(".gz"))
    else:
        raise UnreadableFileError(
            f"its name ends in none of {', '.join(ENDINGS)}; if it is not data, let its name begin with '_'"
        )
    twice = [name for name, count in collections.Counter(rows.schema.names).items() if count > 1]
    if twice:
        raise UnreadableFileError(f"it has more than one column {', '.join(twice)}; expected distinct names")
    return rows


@contextlib.contextmanager
def _explained(where: str, file: FileVersion | LandingFile) -> Iterator[None]:
    """Say of a reading error which file it is in and what to do."""
    try:
        yield
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{where} ({file.size} bytes) cannot be scored: {error}") from error
    except (pa.ArrowException, EOFError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno):
            raise  # gone, changed, not permitted, or the disk's trouble: these say so themselves
        kind = "Parquet" if file.path.endswith(".parquet") else "CSV"
        found = str(error).splitlines()[0]
        meaning = next((meaning for words, meaning in _MEANINGS if words in found), "it may be truncated")
        raise UnreadableFileError(
            f"{where} ({file.size} bytes) is no whole {kind} file: {found.rstrip('.')}; {meaning}: upload it again"
        ) from error


class FileRows(ABC):
    """The rows of one open file."""

    schema: pa.Schema
    batch_rows = BATCH_ROWS
    is_text: bool
    """Whether cells are bytes that are still to be cast."""
    explain: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    refuse_changed: Callable[[], None] = staticmethod(lambda: None)
    """Raise FileChangedError if the file was written to since it was opened: what was read may be a mix."""

    def count(self) -> int:
        """All rows, broken ones included. Reads a CSV file to its end."""
        with self.explain():
            return self._count()

    def read(self, start: int, stop: int) -> Iterator[Rows]:
        """Rows start + 1 … stop, at most `batch_rows` at a time. Calls go forward through the file."""
        with self.explain():
            yield from self._read(start, stop)

    @property
    @abstractmethod
    def share(self) -> float:
        """How much of the file has been read, from 0 to 1, for progress."""

    @abstractmethod
    def _count(self) -> int: ...

    @abstractmethod
    def _read(self, start: int, stop: int) -> Iterator[Rows]: ...


class _ParquetRows(FileRows):
    is_text = False

    def __init__(self, stream: BinaryIO) -> None:
        self._file = pq.ParquetFile(stream, pre_buffer=False)  # else the whole file's bytes stay in memory
        self.schema = self._file.schema_arrow
        metadata = self._file.metadata
        sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self._position = 0

    @property
    def share(self) -> float:
        return self._position / max(self._count(), 1)

    def _count(self) -> int:
        return int(self._file.metadata.num_rows)

    def _read(self, start: int, stop: int) -> Iterator[Rows]:
        stop = min(stop, self._count())
        first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
        if stop <= start:
            return
        position = int(self._starts[first])
        groups = list(range(first, last + 1))
        for batch in self._file.iter_batches(self.batch_rows, row_groups=groups, use_threads=False):
            begin, end = max(start - position, 0), min(stop - position, batch.num_rows)
            numbers = np.arange(position + begin + 1, position + end + 1)
            position = self._position = position + batch.num_rows
            if begin < end:
                yield Rows(batch.slice(begin, end - begin), numbers)


class _CsvRows(FileRows):
    is_text = True

    def __init__(self, stream: BinaryIO, csv: Csv, size: int, *, compressed: bool) -> None:
        self._invalid: collections.deque[BrokenRow] = collections.deque()
        again = Twice(stream)
        header = _header(Text(again.reader(), compressed=compressed), csv, lambda _: "skip")
        self._text, self._size = Text(again.reader(), compressed=compressed), size
        self._reader = _open_csv(self._text, csv, self._on_invalid, dict.fromkeys(header, pa.binary()))
        self.schema = self._reader.schema
        self._parsed = 0  # rows that the blocks handed out so far cover
        self._blocks = self._numbered()
        self._rest: Rows | None = None

    @property
    def share(self) -> float:
        return min(self._text.stored / max(self._size, 1), 1.0)

    def _on_invalid(self, row: pa.csv.InvalidRow) -> str:
        detail = f"{row.actual_columns} cells, the header has {row.expected_columns}"
        self._invalid.append(BrokenRow(row.number - 1, detail, row.text))  # the header is Arrow's row 1
        return "skip"

    def _count(self) -> int:
        for _ in self._blocks:
            pass
        return self._parsed

    def _read(self, start: int, stop: int) -> Iterator[Rows]:
        while True:
            block = self._rest or next(self._blocks, None)
            self._rest = None
            if block is None:
                return
            block = _cut(block, start, None)
            wanted, self._rest = _cut(block, None, stop), _cut(block, stop, None)
            if not len(self._rest):
                self._rest = None
            if len(wanted):
                yield wanted
            if self._rest is not None:
                return

    def _numbered(self) -> Iterator[Rows]:
        """Blocks of rows with their numbers: those skipped as broken count too."""
        last = b""
        for batch in self._reader:
            broken = np.array([row.number for row in self._invalid], np.int64)
            # how many parsed rows of this batch stand before each broken one
            before = broken - np.arange(len(broken)) - self._parsed - 1
            mine = int((before <= batch.num_rows).sum())
            places = np.arange(batch.num_rows)
            numbers = self._parsed + 1 + places + np.searchsorted(before, places, side="right")
            self._parsed += batch.num_rows + mine
            waiting = [self._invalid.popleft() for _ in range(mine)]
            ends_broken = mine > 0 and before[mine - 1] == batch.num_rows
            last = _last_cell(batch, waiting if ends_broken else ()) or last
            for start in range(0, max(batch.num_rows, 1), self.batch_rows):
                part = numbers[start : start + self.batch_rows]
                is_last = start + self.batch_rows >= batch.num_rows
                ready = tuple(row for row in waiting if is_last or row.number < part[-1])
                waiting = waiting[len(ready) :]
                yield Rows(batch.slice(start, self.batch_rows), part, ready)
        if self._invalid:
            broken_rows = tuple(self._invalid)
            self._parsed += len(broken_rows)
            yield Rows(pa.RecordBatch.from_pylist([], self.schema), np.zeros(0, np.int64), broken_rows)
            last = _last_cell(None, broken_rows)
        end = self._text.end.rstrip()
        if b"\n" in last and end and not end.endswith(b'"'):
            # such a quote takes all rows after it into its cell, and Arrow does not mind
            raise UnreadableFileError(
                f"a quote that opens in row {self._parsed} is never closed, so that this row swallows the rest of the "
                "file; close it, or upload the whole file if this one is truncated"
            )


def _last_cell(batch: pa.RecordBatch | None, broken: Sequence[BrokenRow]) -> bytes:
    """The cell with which a block ends, or the text of a row that could not be parsed if a quote is open in it."""
    if broken:
        text = broken[-1].text
        return text.encode() if text.count('"') % 2 else b" "
    return (batch.column(batch.num_columns - 1)[-1].as_py() or b" ") if batch is not None and batch.num_rows else b""


def _header(source: io.RawIOBase, csv: Csv, on_invalid: object) -> list[str]:
    """Column names, from a first look: types are given per name, and Arrow would else guess them."""
    reader = _open_csv(source, csv, on_invalid, {})
    return list(reader.schema.names)


def _open_csv(
    source: io.RawIOBase, csv: Csv, on_invalid: object, types: dict[str, pa.DataType]
) -> pa.csv.CSVStreamingReader:
    return pa.csv.open_csv(
        pa.PythonFile(source, mode="r"),
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK),
        parse_options=pa.csv.ParseOptions(
            delimiter=csv.delimiter, newlines_in_values=True, invalid_row_handler=on_invalid
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types=types,
            null_values=list(csv.null_values),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=False,
        ),
    )


def _cut(rows: Rows, start: int | None, stop: int | None) -> Rows:
    """The rows with start < number <= stop."""
    low, high = (0 if start is None else start), (np.iinfo(np.int64).max if stop is None else stop)
    first, last = np.searchsorted(rows.numbers, [low, high], side="right")
    broken = tuple(row for row in rows.broken if low < row.number <= high)
    return Rows(rows.batch.slice(first, last - first), rows.numbers[first:last], broken)
