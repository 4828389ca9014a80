"""The day's landing files: listing, inspecting and opening them.

Every file is read in its pinned version. `formats/rows.py` is the interface to its rows.
"""

import collections
import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import pyarrow as pa

from batch_scoring.config.spec import Csv
from batch_scoring.errors import UnreadableFileError
from batch_scoring.ingest.formats.rows import BATCH_ROWS, FileRows
from batch_scoring.runtime.printable import one_line
from batch_scoring.storage.folders.folder import FileVersion, Folder
from batch_scoring.storage.folders.local import former_token
from batch_scoring.storage.state import LandingFile

if TYPE_CHECKING:
    from batch_scoring.ingest.schema.compiled import Column

AnyFile = TypeVar("AnyFile", FileVersion, LandingFile, FileVersion | LandingFile)

_CSV = (".csv", ".csv.gz")
_JSON_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
ENDINGS = (".parquet", *_CSV, *_JSON_LINES)
_HASHED = 1024 * 1024
"""Bytes hashed at a time."""

_DAY = re.compile(r"(?:\w+=)?(\d{4})(?:-(\d{1,2})-(\d{1,2})|_(\d{1,2})_(\d{1,2})|(\d\d)(\d\d))/?")
"""A name that a person reads as a day."""

_MEANINGS = (
    ("magic bytes", "it may be truncated or in another format"),
    ("codec can't decode", "its header must be UTF-8"),
    ("header check", "it is not compressed, but its name ends in .gz"),
    ("hrift", "its pages are damaged"),
    ("orrupt", "its pages are damaged"),
    ("CRC", "its pages are damaged"),
)
"""Text in errors of Arrow and Python, and what it means to the person who wrote the file."""


def day_folder(day: str) -> str:
    """Return the prefix of a day's files in its landing folder and tables."""
    return f"dt={day}/"


def meant_day(name: str) -> date | None:
    """The day that a folder's name means, also in a form that is not read: 2024-01-05, dt=2024-1-5, day=20240105/."""
    found = _DAY.fullmatch(name)
    with contextlib.suppress(ValueError):
        return date(*(int(part) for part in found.groups() if part)) if found else None
    return None


def namesakes(landing: Folder, day: str) -> list[str]:
    """The names of other folders that mean a day, for example dt=2024-1-5/ beside dt=2024-01-05/."""
    names = [f"{name}/" for name in landing.children().folders]
    return [name for name in names if str(meant_day(name)) == day and name != day_folder(day)]


def list_day(landing: Folder, day: str) -> list[FileVersion]:
    """List the day's data files by path, including unreadable ones. Names that begin with `_` or `.` are not data."""
    return data_files(landing.look(day_folder(day)))


def data_files(listed: Iterable[FileVersion]) -> list[FileVersion]:
    """Return the data files among the given files, in the same order."""
    return [file for file in listed if is_data(file.path)]


def list_days(landing: Folder) -> dict[str, list[FileVersion]]:
    """List the data files of all days in one listing."""
    found: dict[str, list[FileVersion]] = {}
    for file in landing.look("dt="):
        if is_data(file.path) and ("/" in file.path or file.trouble):
            found.setdefault(file.path.split("/")[0].removeprefix("dt="), []).append(file)
    return found


def is_data(path: str) -> bool:
    """Whether a path is a data file: no part of it begins with `_` or `.`."""
    return not any(part.startswith(("_", ".")) for part in path.split("/"))


def in_words(landing: Folder, troubled: Sequence[FileVersion]) -> str:
    """Describe what is wrong with files of a listing."""
    said = [f"{landing.uri}/{file.path}: {file.trouble.reason}" for file in troubled if file.trouble]
    more = [f"and {len(said) - 3} more"] if len(said) > 3 else []
    return "; ".join([*said[:3], *more])


def newest_first(files: Iterable[AnyFile]) -> list[AnyFile]:
    """Return files in reading order: of rows with equal keys, the first one read is accepted."""
    return sorted(files, key=lambda file: (file.modified, file.path), reverse=True)


def fingerprint(files: Iterable[FileVersion | LandingFile]) -> str:
    """Identify the content of a day: a sha256 over path, version token and size of each file, newest first.

    The order matters: uploading one of the same files again can change which rows are accepted.
    """
    return _digest((file.path, file.token, file.size) for file in newest_first(files))


def is_of(name: str | None, files: Iterable[FileVersion]) -> bool:
    """Whether a fingerprint identifies exactly these files; before 2026-11, tokens of local files had another form."""
    ordered = newest_first(files)
    former = ((file.path, former_token(file.token), file.size) for file in ordered)
    return name is not None and name in (fingerprint(ordered), _digest(former))


def _digest(files: Iterable[tuple[str, str, int]]) -> str:
    lines = (f"{path}\0{token}\0{size}\n" for path, token, size in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def inspect(landing: Folder, file: FileVersion, csv: Csv) -> LandingFile:
    """Read a file's columns and number of rows; a text file is read to its end, so truncation is noticed.

    Raises:
        UnreadableFileError: it is not a complete file of its format.
        FileChangedError: it was replaced since the listing.
    """
    with open_rows(landing, file, csv, columns=()) as rows:
        return LandingFile(
            path=file.path,
            token=file.token,
            size=file.size,
            modified=file.modified,
            rows=rows.count(),
            columns={field.name: str(field.type) for field in rows.schema},
            content=_content(landing, file) if landing.is_local else None,
        )


def _content(landing: Folder, file: FileVersion) -> str:
    hasher = hashlib.sha256()
    with landing.open(file.path, file.token) as stream:
        while block := stream.read(_HASHED):
            hasher.update(block)
    return hasher.hexdigest()


@contextlib.contextmanager
def open_rows(
    landing: Folder,
    file: FileVersion | LandingFile,
    csv: Csv,
    columns: "Iterable[str] | Mapping[str, Column] | None" = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[FileRows]:
    """Open one pinned version of a landing file.

    Args:
        landing: the landing folder.
        file: the file, in the version to read.
        csv: the dialect of a CSV file.
        columns: columns to decode, all if None; with their declarations, which give JSON Lines their types.
        batch_rows: maximum number of rows in a record batch.

    Raises:
        UnreadableFileError: it is not a complete file of its format; noticed on opening or while reading.
        FileChangedError: it is no longer the pinned version, at the start or at the end.
        FileNotFoundError: it no longer exists.
    """
    where = one_line(f"{landing.uri}/{file.path}")
    with landing.open(file.path, file.token) as stream:
        with _explained(where, file):
            rows = _rows(stream, file, csv, columns)
        rows.batch_rows = batch_rows
        rows.explain = lambda: _explained(where, file)
        if landing.is_local:  # on S3, every read names the version
            rows.refuse_changed = lambda: landing.open(file.path, file.token).close()
        yield rows
        rows.refuse_changed()


def _rows(
    stream: BinaryIO,
    file: FileVersion | LandingFile,
    csv: Csv,
    columns: "Iterable[str] | Mapping[str, Column] | None",
) -> FileRows:
    if file.size == 0:
        raise UnreadableFileError("it is empty (0 bytes); expected a header, a line or a Parquet footer")
    # imported late, so that listing files stays fast
    from batch_scoring.ingest.formats.csv_rows import CsvRows
    from batch_scoring.ingest.formats.json_lines import JsonLines
    from batch_scoring.ingest.formats.parquet_rows import ParquetRows

    rows: FileRows
    if file.path.endswith(".parquet"):
        rows = ParquetRows(stream, columns)
    elif file.path.endswith(_JSON_LINES):
        rows = JsonLines(stream, file.size, compressed=file.path.endswith(".gz"), columns=columns)
    elif file.path.endswith(_CSV):
        rows = CsvRows(stream, csv, file.size, compressed=file.path.endswith(".gz"), columns=columns)
    else:
        raise UnreadableFileError(
            f"its name ends in none of {', '.join(ENDINGS)}; if it is one of these, rename it; if it is not data, "
            "rename it to begin with '_'"
        )
    twice = [name for name, count in collections.Counter(rows.schema.names).items() if count > 1]
    if twice:
        raise UnreadableFileError(
            f"it has more than one column {', '.join(map(repr, twice))}; expected distinct names: rename or leave out "
            "all but one"
        )
    return rows


@contextlib.contextmanager
def _explained(where: str, file: FileVersion | LandingFile) -> Iterator[None]:
    """Add to a reading error which file it concerns and what to do."""
    try:
        yield
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{where} ({file.size} bytes) cannot be scored: {error}") from error
    except (pa.ArrowException, EOFError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno):
            raise  # missing, changed, forbidden, or a disk error: these messages are clear
        kind = "Parquet" if file.path.endswith(".parquet") else "CSV" if file.path.endswith(_CSV) else "JSON Lines"
        found = str(error).splitlines()[0]
        meaning = next((meaning for words, meaning in _MEANINGS if words in found), "it may be truncated")
        raise UnreadableFileError(
            f"{where} ({file.size} bytes) is not a complete {kind} file: "
            f"{found.rstrip('.')}; {meaning}: upload it again"
        ) from error
