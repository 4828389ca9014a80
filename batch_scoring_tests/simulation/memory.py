"""Storage in memory: a folder, and a stand-in for deltalake's table with the behaviour observed in the real one.

Observed with deltalake 1.6.6, and checked by `test_simulation.py`, which plays the same histories on the real one: a
loaded table does not learn of its own commit; `max_commit_retries=0` commits on the loaded version or raises; the
library's own rules (more retries) reject a commit only if another one used the same application id, changed the
metadata or removed data, so they miss a compaction; adding columns is a separate commit, rejected after another change
of metadata; restore keeps the transaction versions; a vacuum keeps a file that was removed recently, unless an older
removal of it has expired.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, BinaryIO

import pyarrow as pa
from deltalake import Field
from deltalake.exceptions import CommitFailedError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction

from batch_scoring.errors import FileChangedError
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.formats.rows import Rows
from batch_scoring.storage import delta, shards
from batch_scoring.storage.folders.folder import Children, FileVersion, Folder
from batch_scoring.storage.state import ShardStats
from batch_scoring_tests.simulation.turns import Errors
from batch_scoring_tests.simulation.world import COMMIT_ERRORS, DAY, OTHER_DAY, VACUUM_AFTER, Row, World

ROOT = "s3://memory"


@dataclass
class ShardContent:
    """What stands for a Parquet file."""

    batches: list[pa.RecordBatch]
    schema: pa.Schema
    stats: str | None = None
    rows: list[Row] | None = None
    """What a reader makes of it; computed once."""


@dataclass(frozen=True)
class Stored:
    """A file."""

    version: FileVersion
    content: Any


class MemoryFolder(Folder):
    """A folder in memory; it calls itself S3, so its version tokens are ETags: the same for the same content."""

    def __init__(self, world: World, uri: str) -> None:
        self.uri = uri
        self._world = world
        self.name = PurePosixPath(uri).name
        self.files: dict[str, Stored] = {}
        self.scratched: dict[Path, ShardContent] = {}

    def subfolder(self, path: str) -> Folder:
        return self._world.store.folder(f"{self.uri}/{path}")

    def list(self, prefix: str = "", after: str = "") -> list[FileVersion]:
        def effect() -> list[FileVersion]:
            return [self.files[path].version for path in sorted(self.files) if path.startswith(prefix) and path > after]

        return self._world.operation(f"list {self.name}", effect)

    def children(self) -> Children:
        paths = [path.split("/") for path in self.files]
        folders = sorted({first for first, *rest in paths if rest})
        return Children(tuple(folders), tuple(sorted(first for first, *rest in paths if not rest)))

    def open(self, path: str, token: str | None = None) -> BinaryIO:
        return io.BytesIO(self._world.operation(f"read {path}", lambda: self._read(path, token)))

    def _read(self, path: str, token: str | None) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(f"there is no {self.uri}/{path}")
        stored = self.files[path]
        if token is not None and stored.version.token != token:
            raise FileChangedError(f"{self.uri}/{path} has changed")
        content = stored.content
        return content if isinstance(content, bytes) else str(content).encode()

    def read_each(self, paths: Sequence[str]) -> "list[bytes | None]":
        files = self.files  # one moment: what other days say has no part in the protocol
        return [self._read(path, None) if path in files else None for path in paths]

    def put(self, path: str, data: bytes) -> None:
        def effect() -> None:
            self.store(path, data, len(data), str(hash(data)))
            self._world.document_written(path)

        self._world.operation(f"put {path}", effect)

    def put_if(self, path: str, data: bytes, token: str | None) -> None:
        raise AssertionError(f"{path}: no step of a run writes on a condition")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        yield Path(f"scratch-{self._world.serial()}")

    def put_file(self, scratch: Path, path: str) -> int:
        def effect() -> int:
            size = 1000 + self._world.serial() % 997  # no two attempts are of one size
            was_there = path in self.files
            self.store(path, self.scratched.pop(scratch), size, scratch.name)
            self._world.wrote(self.name, path)
            if was_there:
                self._world.table_changed(self.name, ours=False)
            return size

        return self._world.operation(f"write {self.name}", effect)

    def store(self, path: str, content: object, size: int, token: str) -> None:
        self.files[path] = Stored(FileVersion(path, token, size, self._world.now), content)

    def open_arrow(self, path: str) -> pa.NativeFile:
        raise AssertionError(f"{path}: nothing opens Parquet in memory")

    def delta_options(self) -> dict[str, str]:
        return {}

    def settle(self, prefix: str) -> None:
        self._world.operation("settle", lambda: None)

    def remove(self, path: str) -> None:
        raise AssertionError(f"{path}: nothing is removed in memory")


@dataclass(frozen=True)
class Active:
    """An active file of a table."""

    size: int
    partition: dict[str, str]


@dataclass
class Version:
    """A version of a table: all that its log says up to there."""

    files: dict[str, Active]
    schema: pa.Schema
    transactions: dict[str, int] = field(default_factory=dict)
    removed: dict[str, tuple[datetime, ...]] = field(default_factory=dict)
    """When each path was removed, every time."""
    touched: frozenset[str] = frozenset()
    """Application ids of the commit."""
    is_conflict: bool = False
    """Whether the library refuses to commit over it: data was removed, or the metadata changed."""
    actions: pa.RecordBatch | None = None


class MemoryTable:
    """Stands for `deltalake.DeltaTable`."""

    world: World
    """Of the history that is being played."""

    def __init__(self, uri: str, storage_options: dict[str, str] | None = None) -> None:
        self._uri = uri
        self._log = self.world.operation(f"load {uri.rpartition('/')[2]}", lambda: list(store(self.world).log(uri)))
        if not self._log:
            raise TableNotFoundError(f"no table at {uri}")

    @property
    def _loaded(self) -> Version:
        return self._log[-1]

    def version(self) -> int:
        return len(self._log) - 1

    def metadata(self) -> SimpleNamespace:
        return SimpleNamespace(created_time=1)

    def transaction_version(self, application: str) -> int | None:
        return self._loaded.transactions.get(application)

    def get_add_actions(self, flatten: bool = False) -> pa.RecordBatch:
        assert flatten
        return actions(self._loaded, with_stage=self._uri.endswith("quarantine"))

    def schema(self) -> "MemorySchema":
        return MemorySchema(self._loaded.schema)

    @property
    def alter(self) -> "MemoryTable":
        return self

    def add_columns(self, fields: list[Field]) -> None:
        def effect() -> None:
            log = store(self.world).log(self._uri)
            if any(version.is_conflict for version in log[len(self._log) :]):
                raise CommitFailedError("Metadata changed since last commit.")
            schema = log[-1].schema
            for new in map(pa.field, fields):
                schema = schema if new.name in schema.names else schema.append(new)
            log.append(replace(log[-1], schema=schema, touched=frozenset(), is_conflict=True))

        self.world.operation("add columns", effect, COMMIT_ERRORS)

    def create_write_transaction(
        self,
        actions: list[AddAction | RemoveAction],
        mode: str,
        schema: object,
        partition_by: list[str],
        commit_properties: CommitProperties,
    ) -> None:
        assert mode == "append"
        name = self._uri.rpartition("/")[2]

        def effect() -> None:
            log = store(self.world).log(self._uri)
            since = log[len(self._log) :]
            applications = {t.app_id: t.version for t in commit_properties.app_transactions or []}
            if since and commit_properties.max_commit_retries == 0:
                raise CommitFailedError("Failed to commit transaction: 0")
            if any(version.is_conflict or version.touched & set(applications) for version in since):
                raise CommitFailedError("a concurrent transaction deleted data this operation read")
            before = store(self.world).rows(name)
            now = self.world.now
            files, removed = dict(log[-1].files), dict(log[-1].removed)
            for action in actions:
                if isinstance(action, AddAction):
                    files[action.path] = Active(action.size, action.partition_values)
                else:
                    files.pop(action.path, None)
                    removed[action.path] = (*removed.get(action.path, ()), now)
            log.append(
                Version(
                    files,
                    log[-1].schema,
                    log[-1].transactions | applications,
                    removed,
                    frozenset(applications),
                    is_conflict=any(isinstance(action, RemoveAction) for action in actions),
                )
            )
            self.world.committed(name, len(log) - 1, actions)
            self.world.replaces_newer(name, before)

        self.world.operation(f"commit {name}", effect, COMMIT_ERRORS)

    @classmethod
    def create(
        cls,
        uri: str,
        schema: pa.Schema,
        mode: str,
        partition_by: list[str],
        configuration: dict[str, str],
        storage_options: dict[str, str],
    ) -> None:
        def effect() -> None:
            log = store(cls.world).log(uri)
            if not log:
                log.append(Version({}, pa.schema(schema), is_conflict=True))

        assert mode == "ignore"
        cls.world.operation("create", effect, COMMIT_ERRORS)


@dataclass(frozen=True)
class MemorySchema:
    """Stands for `deltalake.Schema`."""

    _arrow: pa.Schema

    def to_arrow(self) -> pa.Schema:
        return self._arrow


def actions(version: Version, *, with_stage: bool) -> pa.RecordBatch:
    """The active files as deltalake tells them, less the statistics."""
    if version.actions is None:
        files = version.files
        columns = {
            "path": pa.array(files, pa.string()),
            "size_bytes": pa.array([file.size for file in files.values()], pa.int64()),
            "partition.dt": pa.array([_DATES[file.partition["dt"]] for file in files.values()], pa.date32()),
        }
        if with_stage:
            columns["partition.stage"] = pa.array([f.partition["stage"] for f in files.values()], pa.string())
        version.actions = pa.RecordBatch.from_pydict(columns)
    return version.actions


_DATES = {day: date.fromisoformat(day) for day in (DAY, OTHER_DAY)}


def store(world: World) -> "MemoryStore":
    """The world's store, which is in memory."""
    assert isinstance(world.store, MemoryStore)
    return world.store


class MemoryStore:
    """All folders and tables of a history."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._folders: dict[str, MemoryFolder] = {}
        self._logs: dict[str, list[Version]] = {}

    def folder(self, uri: str) -> MemoryFolder:
        if uri not in self._folders:
            self._folders[uri] = MemoryFolder(self._world, uri)
        return self._folders[uri]

    def log(self, uri: str) -> list[Version]:
        return self._logs.setdefault(uri, [])

    def _uri(self, table: str) -> str:
        return f"{self._world.pipeline.output.uri}/tables/{table}"

    def _of(self, table: str) -> tuple[MemoryFolder, list[Version]]:
        return self.folder(self._uri(table)), self.log(self._uri(table))

    # the landing

    def land(self, name: str, content: int, modified: datetime) -> None:
        folder = self.folder(self._world.pipeline.landing.uri)
        folder.store(f"dt={DAY}/{name}", content, 100 + content, f"etag{content}")

    def unland(self, name: str) -> None:
        del self.folder(self._world.pipeline.landing.uri).files[f"dt={DAY}/{name}"]

    # what a reader sees

    def rows(self, table: str) -> list[Row]:
        folder, log = self._of(table)
        rows: list[Row] = []
        for path, active in log[-1].files.items() if log else ():
            stored = folder.files.get(path)
            if stored is None or stored.version.size != active.size:
                found = "is gone" if stored is None else f"has {stored.version.size} bytes, not {active.size}"
                self._world.violate(f"2: {table} cannot be read: {path} {found}")
            elif active.partition["dt"] == DAY:
                if stored.content.rows is None:
                    stored.content.rows = [row for batch in stored.content.batches for row in rows_of(table, batch)]
                rows += stored.content.rows
        return rows

    def snapshot(self, part: delta.Part) -> delta.Snapshot:
        log = self.log(part.table.folder.uri)
        if not log:
            return delta.Snapshot(-1, 0, {})
        files = {
            path: file.size
            for path, file in log[-1].files.items()
            if file.partition["dt"] == part.day and (not part.stages or file.partition["stage"] in part.stages)
        }
        return delta.Snapshot(len(log) - 1, log[-1].transactions.get(part.transaction) or 0, files)

    def exists(self, table: str, path: str) -> bool:
        return path in self.folder(self._uri(table)).files

    def young(self, table: str, path: str) -> bool:
        modified = self.folder(self._uri(table)).files[path].version.modified
        return self._world.now - modified < shards.REUSE_WITHIN

    def version(self, table: str) -> int:
        return len(self.log(self._uri(table))) - 1

    # what others do to a table

    def compact(self, table: str) -> bool:
        folder, log = self._of(table)
        by_partition: dict[tuple[str, ...], list[str]] = {}
        for path, active in log[-1].files.items() if log else ():
            by_partition.setdefault(tuple(active.partition.values()), []).append(path)
        several = [paths for paths in by_partition.values() if len(paths) > 1]
        if not several:
            return False
        files, removed = dict(log[-1].files), dict(log[-1].removed)
        for paths in several:
            batches = [batch for path in paths for batch in folder.files[path].content.batches]
            partition = files[paths[0]].partition
            for path in paths:
                del files[path]
                removed[path] = (*removed.get(path, ()), self._world.now)
            if any(batch.num_rows for batch in batches):
                number = self._world.serial()
                place = "/".join(f"{name}={value}" for name, value in partition.items())
                path = f"{place}/part-{number:05d}.parquet"
                folder.store(path, ShardContent(batches, batches[0].schema), 5000 + number, str(number))
                files[path] = Active(5000 + number, partition)
        log.append(Version(files, log[-1].schema, log[-1].transactions, removed))
        return True

    def restore(self, table: str, version: int) -> bool:
        folder, log = self._of(table)
        old, new = log[version], log[-1]
        if version == len(log) - 1 or any(path not in folder.files for path in old.files):
            return False
        removed = dict(new.removed)
        for path in new.files.keys() - old.files.keys():
            removed[path] = (*removed.get(path, ()), self._world.now)
        log.append(Version(dict(old.files), old.schema, new.transactions, removed, is_conflict=True))
        return True

    def delete_day(self, table: str) -> bool:
        _, log = self._of(table)
        mine = [path for path, file in log[-1].files.items() if file.partition["dt"] == DAY] if log else []
        if not mine:
            return False
        files, removed = dict(log[-1].files), dict(log[-1].removed)
        for path in mine:
            del files[path]
            removed[path] = (*removed.get(path, ()), self._world.now)
        log.append(Version(files, log[-1].schema, log[-1].transactions, removed, is_conflict=True))
        return True

    def other_day(self, table: str) -> bool:
        folder, log = self._of(table)
        if not log:
            return False
        number = self._world.serial()
        partition = {"dt": OTHER_DAY} | ({"stage": "rule"} if table == "quarantine" else {})
        place = "/".join(f"{name}={value}" for name, value in partition.items())
        path = f"{place}/{number:032x}-00000000.parquet"
        folder.store(path, ShardContent([], pa.schema([])), 2000 + number, str(number))
        files = log[-1].files | {path: Active(2000 + number, partition)}
        other = f"{table}/dt={OTHER_DAY}"
        transactions = log[-1].transactions | {other: log[-1].transactions.get(other, 0) + 1}
        log.append(Version(files, log[-1].schema, transactions, log[-1].removed, frozenset({other})))
        return True

    def doomed(self, table: str) -> list[str]:
        folder, log = self._of(table)
        if not log:
            return []
        until = self._world.now - VACUUM_AFTER
        newest = log[-1]
        return [
            path
            for path, stored in folder.files.items()
            if path not in newest.files
            and (
                any(when < until for when in newest.removed[path])
                if path in newest.removed
                else stored.version.modified < until
            )
        ]

    def unlink(self, table: str, path: str) -> None:
        self.folder(self._uri(table)).files.pop(path, None)

    def vacuum(self, table: str) -> bool:
        doomed = self.doomed(table)
        log = self.log(self._uri(table))
        for _ in range(2 if log else 0):  # VACUUM START, VACUUM END
            log.append(replace(log[-1], touched=frozenset(), is_conflict=False))
        for path in doomed:
            self.unlink(table, path)
        return bool(doomed)


def rows_of(table: str, batch: pa.RecordBatch) -> Iterable[Row]:
    """The rows of a batch as `World.legal` has them."""
    columns = {"validated_features": ("id", "x"), "predictions": ("id", "prediction", "model_version")}
    if table == "quarantine":
        return [(int(raw.split('"x": ')[1].split(",")[0]),) for raw in batch.column("raw").to_pylist()]
    return zip(*(batch.column(name).to_pylist() for name in columns[table]), strict=True)


# what stands for Parquet, with the signatures of `shards` and `landing`


class MemoryShard:
    """Stands for `shards.ShardWriter`."""

    def __init__(self, table: MemoryFolder, scratch: Path, schema: pa.Schema) -> None:
        self._table, self._scratch, self._schema = table, scratch, schema
        self._batches: list[pa.RecordBatch] = []

    @property
    def rows(self) -> int:
        return sum(batch.num_rows for batch in self._batches)

    def write(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)

    def flush(self) -> None:
        """Everything is in memory."""

    def finish(self, prefix: str, stats: ShardStats) -> shards.ShardFile:
        content = ShardContent(self._batches, self._schema, stats.model_dump_json())
        self._table.scratched[self._scratch] = content
        path = f"{prefix}{stats.digest}-{shards.uuid.uuid4().hex[:8]}.parquet"
        return shards.ShardFile(path, self._table.put_file(self._scratch, path), stats.rows)


@contextlib.contextmanager
def writing(table: MemoryFolder, schema: pa.Schema, constant: Iterable[str] = ()) -> Iterator[MemoryShard]:
    with table.scratch() as scratch:
        yield MemoryShard(table, scratch, schema)


def _content(table: MemoryFolder, path: str, errors: Errors = (OSError,)) -> ShardContent:
    def effect() -> ShardContent:
        if path not in table.files:
            raise FileNotFoundError(f"there is no {table.uri}/{path}")
        return table.files[path].content

    return table._world.operation(f"read {path}", effect, errors)


def read_stats(table: MemoryFolder, shard: shards.ShardFile) -> ShardStats | None:
    try:  # a footer that does not come counts as damaged, and its shard is written anew: no fault here
        return ShardStats.model_validate_json(_content(table, shard.path, ()).stats or "")
    except OSError:
        return None


def read(
    table: MemoryFolder, path: str, columns: list[str] | None = None, *_settings: object, batch_rows: int = 0
) -> Iterator[pa.RecordBatch]:
    for batch in _content(table, path).batches:
        yield batch.select(columns) if columns else batch


def schema(table: MemoryFolder, path: str) -> pa.Schema:
    return _content(table, path).schema


class MemoryRows:
    """Stands for `rows.FileRows`."""

    is_text, share = False, 1.0
    refuse_changed = staticmethod(lambda: None)

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch, self.schema = batch, batch.schema

    def count(self) -> int:
        return self._batch.num_rows

    def read(self, start: int, stop: int) -> Iterator[Rows]:
        import numpy as np

        stop = min(stop, self._batch.num_rows)
        if start < stop:
            yield Rows(self._batch.slice(start, stop - start), np.arange(start + 1, stop + 1))


@contextlib.contextmanager
def open_rows(folder: MemoryFolder, file: Any, *_settings: object, columns: object = None) -> Iterator[MemoryRows]:  # noqa: ANN401
    with folder.open(file.path, file.token) as stream:
        yield MemoryRows(folder._world.batch(int(stream.read())))


def substitutes() -> list[tuple[object, str, Callable[..., Any]]]:
    """What is put in the place of Parquet and deltalake: object, attribute, stand-in."""
    return [
        (delta, "DeltaTable", MemoryTable),
        (landing_files, "open_rows", open_rows),
        *((shards, one.__name__, one) for one in (writing, read_stats, read, schema)),
    ]
