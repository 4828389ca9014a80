"""Shards: Parquet files of a table, named after all that their rows depend on.

    dt=2013-07-01/<digest>-<attempt>.parquet        (the quarantine: dt=…/stage=…/…)

A complete file with the right digest *is* the shard, whoever wrote it: that is resume, incremental scoring and the
no-op re-run. The attempt makes the name unique, so no file is ever overwritten. `delta.py` commits them.
"""

import contextlib
import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from batch_scoring.storage import parquet
from batch_scoring.storage.folders import Folder
from batch_scoring.storage.parquet import READ_ROWS
from batch_scoring.storage.state import ShardStats

REUSE_WITHIN = timedelta(days=3.5)
"""Age up to which an uncommitted shard is taken over: half of vacuum's retention, so it can't vanish meanwhile."""

_FOOTER_KEY = b"batch_scoring"
_NAME = re.compile(r"(?P<digest>[0-9a-f]{32})-[0-9a-f]{8}\.parquet$")


@dataclass(frozen=True)
class ShardFile:
    """A shard's complete file."""

    path: str
    """Relative to the table."""
    size: int
    """Bytes."""
    rows: int = 0

    @property
    def identity(self) -> str:
        """Partition folder and digest: what the rows are, whoever wrote them."""
        return identity_of(self.path)


def identity_of(path: str) -> str:
    """Partition folder and digest of a table's file; of a file that is no shard of ours, its whole path."""
    return path[: path.rindex("-")] if _NAME.search(path) else path


def digest(*parts: object) -> str:
    """32 hexadecimal digits that name the parts, in their order."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def complete(table: Folder, prefix: str, active: Iterable[str]) -> dict[str, ShardFile]:
    """The shards under a prefix that may be used again, by identity; a committed file goes before an orphan."""
    committed = set(active)
    youngest = datetime.now(UTC) - REUSE_WITHIN
    found: dict[str, ShardFile] = {}
    for file in table.list(prefix):
        if _NAME.search(file.path) and (file.path in committed or file.modified > youngest):
            shard = ShardFile(file.path, file.size)
            if shard.identity not in found or file.path in committed:
                found[shard.identity] = shard
    return found


def read_stats(table: Folder, shard: ShardFile) -> ShardStats | None:
    """The account in a shard's footer; None if the file is damaged or not ours."""
    try:
        with table.open_arrow(shard.path) as file:
            metadata = pq.read_metadata(file)
            stats = ShardStats.model_validate_json((metadata.metadata or {})[_FOOTER_KEY])
    except (pa.ArrowException, OSError, KeyError, ValidationError):
        return None
    return stats if stats.rows == metadata.num_rows else None


def read(
    table: Folder,
    path: str,
    columns: list[str] | None = None,
    dictionary: Iterable[str] = (),
    batch_rows: int = READ_ROWS,
) -> Iterator[pa.RecordBatch]:
    """A shard's rows, in flat memory, never through deltalake's file system (it aborts the process at exit).

    Args:
        table: the table's folder.
        path: the shard's file.
        columns: those to read; all if None.
        dictionary: text columns to leave dictionary-encoded.
        batch_rows: rows of a record batch, at most.
    """
    with table.open_arrow(path) as file:
        yield from parquet.read(file, columns, dictionary, batch_rows)


def schema(table: Folder, path: str) -> pa.Schema:
    """The columns of a shard's file."""
    with table.open_arrow(path) as file:
        return pq.read_schema(file)


class ShardWriter:
    """A shard while it is written; nobody sees it before `finish`."""

    def __init__(self, table: Folder, scratch: Path, schema: pa.Schema, dictionary: Iterable[str]) -> None:
        self._table, self._scratch = table, scratch
        self._writer = parquet.Writer(scratch, schema, dictionary)
        self.rows = 0
        """Written so far."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows: the schema's columns, in any order."""
        self._writer.write(batch)
        self.rows += batch.num_rows

    def finish(self, prefix: str, stats: ShardStats) -> ShardFile:
        """Close the file with its account in the footer and give it its name."""
        self._writer.describe({_FOOTER_KEY: stats.model_dump_json()})
        self._writer.close()
        path = f"{prefix}{stats.digest}-{uuid.uuid4().hex[:8]}.parquet"
        return ShardFile(path, self._table.put_file(self._scratch, path), stats.rows)

    def close(self) -> None:
        """Give up what is not published."""
        self._writer.close()


@contextlib.contextmanager
def writing(table: Folder, schema: pa.Schema, dictionary: Iterable[str] = ()) -> Iterator[ShardWriter]:
    """Write a new shard of a table; unless it is published, nothing of it remains.

    Args:
        table: the table's folder.
        schema: of the rows, without the partition columns.
        dictionary: columns with few distinct values; only they are worth a dictionary.
    """
    with (
        table.scratch() as scratch,
        contextlib.closing(ShardWriter(table, scratch, schema, dictionary)) as writer,
    ):
        yield writer
