"""Delta tables: publish a day in one strictly serialised commit, and read a day's files.

A step owns a *part* of a table: one day, or in the quarantine one day's stages. Publishing is a loop: a commit is
accepted only on the exact version it was planned for; otherwise it is planned again. The library's own conflict rules
are not used: under them, two concurrent first writers both succeed, and a compaction in between duplicates rows.
"""

import functools
import json
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Field
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from batch_scoring.errors import PublicationError, SchemaChangedError
from batch_scoring.storage import shards
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.shards import ShardFile, identity_of
from batch_scoring.storage.state import PublishedPart

TIMEOUT = 600.0
"""Seconds to retry a publication while others commit or the store does not respond."""

_LONGEST_LOAD_PAUSE = 5.0
"""Maximum pause in seconds between attempts to load a table; pauses double up to this."""

_CONFIGURATION = {
    "delta.logRetentionDuration": "interval 3650 days",  # by default, lineage is deleted after 30 days
    # a day loads its tables a dozen times, and each commit since the last checkpoint is a file: with a checkpoint every
    # 100 commits, the default, loading takes 47 ms; with one every 10 commits, 9 ms
    "delta.checkpointInterval": "10",
}


@dataclass(frozen=True)
class Table:
    """A Delta table of a pipeline."""

    folder: Folder
    name: str
    partition_by: tuple[str, ...] = ("dt",)

    def load(self) -> DeltaTable | None:
        """Return the table's newest version; None before its first commit."""
        pause = 0.05
        while True:
            try:
                return DeltaTable(self.folder.uri, storage_options=self.folder.delta_options())
            except TableNotFoundError:
                return None
            except OSError as error:  # the library retries requests, but not truncated responses
                raise_if_forbidden(error)
                if self.folder.is_local or pause > _LONGEST_LOAD_PAUSE:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause *= 2


@dataclass(frozen=True)
class Part:
    """What one step owns of a table: a day, or in the quarantine only the day's stages of that step."""

    table: Table
    day: str
    owner: str
    stages: Collection[str] = ()

    @property
    def prefixes(self) -> list[str]:
        """Folders of the part's files, relative to the table."""
        return [f"dt={self.day}/stage={stage}/" for stage in self.stages] or [f"dt={self.day}/"]

    @property
    def transaction(self) -> str:
        """The application id under which Delta counts this part's commits."""
        owner = f"/{self.owner}" if self.stages else ""
        return f"{self.table.name}{owner}/dt={self.day}"

    @property
    def expiry(self) -> str:
        """The application id under which Delta records the last of those commits whose files retention has removed."""
        return f"{self.transaction}/expired"

    def snapshot(self) -> "Snapshot":
        """Return the part in the table's newest version."""
        return _snapshot(self.table.load(), self)


@dataclass(frozen=True)
class Snapshot:
    """A part of a table in a specific version."""

    version: int
    """-1 if the table does not exist."""
    transaction: int
    files: Mapping[str, int]
    """Size in bytes of each active file, by path."""
    damaged: frozenset[str] = frozenset()
    """Active files that are missing or have a different size, changed by others; the next run restores them."""

    expired: int = 0
    """The transaction whose files retention has removed; 0 if none."""
    created: int = 0
    """When the table was created, in milliseconds since 1970; 0 if it does not exist."""

    def holds(self, published: PublishedPart) -> bool:
        """Whether the part still is exactly what was published, apart from files that retention has removed."""
        files, named = set(self.files), set(published.files)
        is_same = files == named or (self.expired == published.transaction and files < named)
        return is_same and self.transaction == published.transaction and not self.damaged


def publish(
    part: Part,
    planned: Mapping[str, ShardFile],
    schema: pa.Schema,
    *,
    check_current: Callable[[], None],
    lineage: Mapping[str, str],
    log: Callable[[str], object] = lambda _: None,
    timeout: float = TIMEOUT,
) -> tuple[PublishedPart, bool]:
    """Replace the contents of the part with exactly the planned shards, in one transaction.

    Args:
        part: what to replace.
        planned: complete shards by identity; a shard that is already active is kept, whoever wrote it.
        schema: of the shards' rows, without partition columns.
        check_current: raises if there is newer input or another model; called after each load of the table, so that any
            commit from then on is a conflict.
        lineage: metadata of the commit.
        log: receives every response of the store that makes this call wait.
        timeout: seconds after which to give up.

    Returns:
        The part as it is now, and whether this call committed anything.

    Raises:
        SchemaChangedError: a column's type differs from the table's.
        PublicationError: a planned file is missing or has the wrong size, or the timeout has passed.
        Exception: whatever `check_current` raises.
    """
    deadline = time.monotonic() + timeout
    pause = 0.05
    committed = False
    while True:
        try:
            table = part.table.load()
            check_current()
            if table is None and not planned:
                return PublishedPart(transaction=0, version=-1, files=()), committed
            snapshot = _snapshot(table, part)
            adds, removes = _difference(snapshot, planned)
            if not adds and not removes:
                return _published(snapshot), committed
            _verify(part, adds)
            table = _prepared(table, part, schema)
            _commit(table, part, snapshot, adds, removes, lineage)
            committed = True
            settle(part.table, snapshot.version + 1)
        except CommitFailedError as error:
            conflict: Exception = error
        except (DeltaError, OSError) as error:
            raise_if_forbidden(error)
            if isinstance(error, OSError) and part.table.folder.is_local:
                raise  # a full disk or denied access: waiting does not help
            conflict = error
            log(f"{part.table.folder.uri}: {part.day} is not committed yet, trying again: {error}")
        else:
            continue  # the next round finds nothing to do and reads the result
        if time.monotonic() > deadline:
            raise PublicationError(
                f"{part.table.folder.uri}: {part.day} could not be committed within {timeout:.0f} s: {conflict}; "
                "nothing was published, finished shards are kept: run the day again"
            ) from conflict
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, 5.0)


def raise_if_forbidden(error: Exception) -> None:
    """Raise PermissionError if access was denied, as waiting does not help; deltalake only says so in the text."""
    if isinstance(error, PermissionError):
        raise error
    if "lacked the necessary privileges" in str(error):
        raise PermissionError(f"access denied: {' '.join(str(error).split())}") from error


def active_files(loaded: DeltaTable, day: str) -> list[dict[str, Any]]:
    """Return the add actions of a day's active files."""
    actions = pa.table(loaded.get_add_actions(flatten=True))
    rows: list[dict[str, Any]] = actions.filter(pc.equal(actions["partition.dt"].cast(pa.string()), day)).to_pylist()
    return rows


def active_paths(loaded: DeltaTable) -> set[str]:
    """Return the paths of all active files."""
    return set(pa.table(loaded.get_add_actions(flatten=True))["path"].to_pylist())


def read_file(table: Table, file: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Read the rows of an active file, with its partitions as columns; a missing column is read as null."""
    stored = shards.schema(table.folder, file["path"])  # a shard of 0 rows has no batch with a schema
    rows = pa.Table.from_batches(shards.read(table.folder, file["path"]), stored)
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.repeat(pa.scalar(file.get(f"partition.{field.name}"), field.type), rows.num_rows)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _snapshot(table: DeltaTable | None, part: Part) -> Snapshot:
    if table is None:
        return Snapshot(-1, 0, {})
    mine = [row for row in active_files(table, part.day) if not part.stages or row["partition.stage"] in part.stages]
    files = {row["path"]: row["size_bytes"] for row in mine}
    there = _stored(part) if files else {}
    damaged = frozenset(path for path, size in files.items() if there.get(path) != size)
    transaction, expired = (table.transaction_version(name) or 0 for name in (part.transaction, part.expiry))
    return Snapshot(table.version(), transaction, files, damaged, expired, table.metadata().created_time or 0)


def _stored(part: Part) -> dict[str, int]:
    """Return the size in bytes of each file in the part's folders, active or not, by path."""
    return {file.path: file.size for prefix in part.prefixes for file in part.table.folder.list(prefix)}


def _published(snapshot: Snapshot) -> PublishedPart:
    return PublishedPart(
        transaction=snapshot.transaction,
        version=snapshot.version,
        files=tuple(sorted(snapshot.files)),
        bytes=sum(snapshot.files.values()),
        created=snapshot.created,
    )


def _difference(snapshot: Snapshot, planned: Mapping[str, ShardFile]) -> tuple[list[ShardFile], dict[str, int]]:
    """Return shards to add and files to remove; damaged files and duplicates of an active shard are removed too."""
    kept: set[str] = set()
    removes = {}
    for path, size in sorted(snapshot.files.items()):
        identity = identity_of(path)
        if identity in planned and identity not in kept and path not in snapshot.damaged:
            kept.add(identity)
        else:
            removes[path] = size
    return [shard for identity, shard in planned.items() if identity not in kept], removes


def _verify(part: Part, adds: list[ShardFile]) -> None:
    """Check that every file to be committed exists with the right size: the commit itself does not check."""
    if not adds:
        return
    there = _stored(part)
    for shard in adds:
        if there.get(shard.path) != shard.size:
            raise PublicationError(
                f"{part.table.folder.uri}/{shard.path} has {there.get(shard.path, 'no')} bytes, but {shard.size} were "
                "written; nothing was published: run the day again"
            )


def _prepared(table: DeltaTable | None, part: Part, schema: pa.Schema) -> DeltaTable:
    """Return the table, created or extended to have all columns of `schema`."""
    folder, partition_by = part.table.folder, list(part.table.partition_by)
    options = folder.delta_options()
    kinds = {"dt": pa.date32(), "stage": pa.string()}
    if table is None:
        fields = [field.with_nullable(True) for field in schema]  # only the files declare which columns have no nulls
        full = pa.schema([*fields, *(pa.field(name, kinds[name]) for name in partition_by)])
        if folder.is_local:
            Path(folder.uri).mkdir(parents=True, exist_ok=True)
        DeltaTable.create(
            folder.uri,
            full,
            mode="ignore",
            partition_by=partition_by,
            configuration=_CONFIGURATION,
            storage_options=options,
        )
        raise CommitFailedError("the table has just been created")  # load it again, with what others did meanwhile
    if new := _new_columns(table, part.table, schema):
        table.alter.add_columns([Field.from_arrow(field.with_nullable(True)) for field in new])
        raise CommitFailedError("columns have just been added")
    return table


def check_column_types(table: Table, schema: pa.Schema) -> None:
    """Check that the table can store the rows, before anything of their day is committed.

    Raises:
        SchemaChangedError: a column's type differs from the table's.
    """
    if (delta := table.load()) is not None:
        _new_columns(delta, table, schema)


def _new_columns(delta: DeltaTable, table: Table, schema: pa.Schema) -> list[pa.Field]:
    """Return the columns of `schema` that the table does not have yet."""
    existing = pa.schema(delta.schema().to_arrow())
    for field in schema:
        if field.name in existing.names and existing.field(field.name).type != field.type:
            raise SchemaChangedError(
                f"{table.folder.uri}: column {field.name} is {existing.field(field.name).type} in the table and would "
                f"become {field.type}; give the pipeline a new output root in its spec, or keep the type"
            )
    return [field for field in schema if field.name not in existing.names]


def settle(table: Table, version: int) -> None:
    """Make a commit and its checkpoint, if there is one, survive a power cut: delta-rs writes without fsync."""
    entries = (f"{version:020}.json", f"{version:020}.checkpoint.parquet", "_last_checkpoint")
    table.folder.settle([f"_delta_log/{entry}" for entry in entries])


def _commit(
    table: DeltaTable,
    part: Part,
    snapshot: Snapshot,
    adds: list[ShardFile],
    removes: Mapping[str, int],
    lineage: Mapping[str, str],
) -> None:
    now = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [
        AddAction(
            shard.path, shard.size, partition_values(shard.path), now, True, json.dumps({"numRecords": shard.rows})
        )
        for shard in adds
    ]
    actions += [
        RemoveAction(path, True, now, size=size, partition_values=partition_values(path))
        for path, size in removes.items()
    ]
    table.create_write_transaction(
        actions,
        mode="append",
        schema=table.schema(),
        partition_by=list(part.table.partition_by),
        commit_properties=CommitProperties(
            custom_metadata=dict(lineage),
            max_commit_retries=0,
            app_transactions=[Transaction(part.transaction, snapshot.transaction + 1)],
        ),
    )


@functools.lru_cache(4096)
def partition_values(path: str) -> dict[str, str | None]:
    """Return the partition values in the names of a file's folders."""
    pairs = (folder.partition("=") for folder in path.split("/")[:-1])
    return {name: value for name, _, value in pairs}
