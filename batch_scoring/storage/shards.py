"""Shards: Parquet files of a table, named by a digest of everything that their rows depend on.

    dt=2013-07-01/<digest>-<attempt>.parquet        (the quarantine: dt=…/stage=…/…)

Any complete file with the right digest *is* the shard, whoever wrote it: this makes runs resumable and incremental, and
repeated runs free. The attempt makes the name unique, so files are never overwritten. `delta.py` commits them.
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
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.parquet import READ_ROWS
from batch_scoring.storage.state import ShardStats

REUSE_WITHIN = timedelta(days=3.5)
"""Maximum age of an uncommitted shard for reuse: half of vacuum's retention, so that it cannot be deleted meanwhile."""

_FOOTER_KEY = b"batch_scoring"
_NAME = re.compile(r"(?P<digest>[0-9a-f]{32})-[0-9a-f]{8}\.parquet$")


@dataclass(frozen=True)
class ShardFile:
    """A complete shard file."""

    path: str
    """Relative to the table."""
    size: int
    """Bytes."""
    rows: int = 0

    @property
    def identity(self) -> str:
        """Partition folder and digest: identifies the rows, whoever wrote them."""
        return identity_of(self.path)


def identity_of(path: str) -> str:
    """Return partition folder and digest of a table's file; the whole path if it is not one of our shards."""
    return path[: path.rindex("-")] if _NAME.search(path) else path


def digest(*parts: object) -> str:
    """Return 32 hexadecimal digits that identify the parts, in order."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def complete(table: Folder, prefix: str, active: Iterable[str]) -> dict[str, ShardFile]:
    """Return the reusable shards under a prefix, by identity; committed files take precedence over orphans."""
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
    """Return the shard statistics in the footer; None if the file is damaged or not ours."""
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
    """Yield a shard's rows, in constant memory; not through deltalake's file system, which can abort on exit.

    Args:
        table: the table's folder.
        path: the shard's file.
        columns: columns to read; all if None.
        dictionary: text columns to keep dictionary-encoded.
        batch_rows: maximum rows of a record batch.
    """
    with table.open_arrow(path) as file:
        yield from parquet.read(file, columns, dictionary, batch_rows)


def schema(table: Folder, path: str) -> pa.Schema:
    """Return the columns of a shard's file."""
    with table.open_arrow(path) as file:
        return pq.read_schema(file)


class ShardWriter:
    """A shard that is being written; invisible before `finish`."""

    def __init__(self, table: Folder, scratch: Path, schema: pa.Schema, dictionary: Iterable[str]) -> None:
        self._table, self._scratch = table, scratch
        self._writer = parquet.Writer(scratch, schema, dictionary)
        self.rows = 0
        """Rows written so far."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows: the schema's columns, in any order."""
        self._writer.write(batch)
        self.rows += batch.num_rows

    def flush(self) -> None:
        """Write all rows that were appended, ahead of `finish`."""
        self._writer.flush()

    def finish(self, prefix: str, stats: ShardStats) -> ShardFile:
        """Close the file with the statistics in its footer, and give it its name."""
        self._writer.describe({_FOOTER_KEY: stats.model_dump_json()})
        self._writer.close()
        path = f"{prefix}{stats.digest}-{uuid.uuid4().hex[:8]}.parquet"
        return ShardFile(path, self._table.put_file(self._scratch, path), stats.rows)

    def close(self) -> None:
        """Discard the file if it has not been published."""
        self._writer.close()


@contextlib.contextmanager
def writing(table: Folder, schema: pa.Schema, dictionary: Iterable[str] = ()) -> Iterator[ShardWriter]:
    """Write a new shard of a table; unless it is finished, nothing of it remains.

    Args:
        table: the table's folder.
        schema: of the rows, without the partition columns.
        dictionary: columns with few distinct values, the only ones worth a dictionary.
    """
    with (
        table.scratch() as scratch,
        contextlib.closing(ShardWriter(table, scratch, schema, dictionary)) as writer,
    ):
        yield writer
