"""Storage on disk, with real Delta tables: every call to it is an operation of the simulated world."""

import builtins
import contextlib
import math
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Field
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from batch_scoring.storage import delta, shards
from batch_scoring.storage.folders.folder import FileVersion, Folder
from batch_scoring.storage.folders.local import LocalFolder, former_token
from batch_scoring_tests.simulation.memory import rows_of
from batch_scoring_tests.simulation.world import COMMIT_ERRORS, DAY, NAMES, OTHER_DAY, VACUUM_AFTER, Row, World

_EPOCH = datetime(2024, 1, 1, tzinfo=UTC).timestamp()


class PointedFolder(LocalFolder):
    """A folder on disk whose files have the world's time."""

    def __init__(self, world: World, path: str) -> None:
        super().__init__(path)
        self._world = world
        self._name = Path(path).name

    def subfolder(self, path: str) -> Folder:
        return self._world.store.folder(f"{self.uri}/{path}")

    def list(self, prefix: str = "", after: str = "") -> list[FileVersion]:
        return self._world.operation(f"list {self._name}", lambda: super(PointedFolder, self).list(prefix, after))

    def look(self, prefix: str = "") -> "builtins.list[FileVersion]":
        # with the tokens of old: a file that is brought back has its token again, as on S3
        seen = self._world.operation(f"list {self._name}", lambda: super(PointedFolder, self).look(prefix))
        return [replace(file, token=former_token(file.token)) for file in seen]

    def open(self, path: str, token: str | None = None) -> BinaryIO:
        return self._world.operation(f"read {path}", lambda: super(PointedFolder, self).open(path, token))

    def put(self, path: str, data: bytes) -> None:
        def effect() -> None:
            super(PointedFolder, self).put(path, data)
            self._world.document_written(path)

        self._world.operation(f"put {path}", effect)

    def put_file(self, scratch: Path, path: str) -> int:
        def effect() -> int:
            size = super(PointedFolder, self).put_file(scratch, path)
            if self._name in NAMES:
                stamp = self._world.now.timestamp()
                os.utime(self._root / path, (stamp, stamp))
                self._world.wrote(self._name, path)
            return size

        return self._world.operation(f"write {self._name}", effect)

    def open_arrow(self, path: str) -> pa.NativeFile:
        # a footer that does not come counts as damaged, and its shard is written anew: no fault here
        return self._world.operation(f"read {path}", lambda: super(PointedFolder, self).open_arrow(path), ())

    def settle(self, paths: Sequence[str]) -> None:
        self._world.operation("settle", lambda: super(PointedFolder, self).settle(paths))


class PointedTable(DeltaTable):
    """deltalake's table."""

    world: World

    def __init__(self, uri: str, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        load = super().__init__
        self.world.operation(f"load {Path(uri).name}", lambda: load(uri, *arguments, **options))

    def create_write_transaction(  # type: ignore[override]
        self,
        actions: list[AddAction | RemoveAction],
        **options: Any,  # noqa: ANN401
    ) -> None:
        commit = super().create_write_transaction
        name = Path(self.table_uri).name

        def effect() -> None:
            before = self.world.store.rows(name)
            commit(actions, **options)  # type: ignore[arg-type]
            self.world.committed(name, self.world.store.version(name), actions)
            self.world.replaces_newer(name, before)

        self.world.operation(f"commit {name}", effect, COMMIT_ERRORS)

    @property
    def alter(self) -> "PointedAlter":  # type: ignore[override]
        return PointedAlter(self.world, super().alter)

    @classmethod
    def create(cls, *arguments: Any, **options: Any) -> DeltaTable:  # type: ignore[override]  # noqa: ANN401
        return cls.world.operation("create", lambda: DeltaTable.create(*arguments, **options), COMMIT_ERRORS)


class PointedAlter:
    """deltalake's changes of a table's metadata."""

    def __init__(self, world: World, alter: Any) -> None:  # noqa: ANN401
        self._world, self._alter = world, alter

    def add_columns(self, fields: list[Field]) -> None:
        self._world.operation("add columns", lambda: self._alter.add_columns(fields), COMMIT_ERRORS)


def substitutes() -> list[tuple[object, str, Callable[..., Any]]]:
    """What is put in the place of deltalake's table: object, attribute, stand-in."""
    return [(delta, "DeltaTable", PointedTable)]


class RealStore:
    """A folder of a history's own."""

    def __init__(self, world: World, root: Path) -> None:
        self._world, self._root = world, root
        self._read: dict[str, list[Row]] = {}

    def folder(self, uri: str) -> PointedFolder:
        return PointedFolder(self._world, uri)

    def _place(self, table: str) -> Path:
        return Path(self._world.pipeline.output.uri) / "tables" / table

    def _load(self, table: str) -> DeltaTable | None:
        try:
            return DeltaTable(str(self._place(table)))
        except TableNotFoundError:
            return None

    # the landing: the time of a file follows from its content, so that A -> B -> A brings back A's version token

    def land(self, name: str, content: int, modified: datetime) -> None:
        file = Path(self._world.pipeline.landing.uri, f"dt={DAY}", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{uuid.uuid4().hex}")
        pq.write_table(pa.Table.from_batches([self._world.batch(content)]), fresh)
        os.utime(fresh, (_EPOCH + content, _EPOCH + content))
        fresh.replace(file)

    def unland(self, name: str) -> None:
        Path(self._world.pipeline.landing.uri, f"dt={DAY}", name).unlink()

    # what a reader sees

    def rows(self, table: str) -> list[Row]:
        loaded = self._load(table)
        rows: list[Row] = []
        for action in pa.table(loaded.get_add_actions(flatten=True)).to_pylist() if loaded else ():
            path, file = action["path"], self._place(table) / action["path"]
            size = file.stat().st_size if file.exists() else None
            if size != action["size_bytes"]:
                found = "is gone" if size is None else f"has {size} bytes, not {action['size_bytes']}"
                self._world.violate(f"2: {table} cannot be read: {path} {found}")
            elif str(action["partition.dt"]) == DAY:
                if str(file) not in self._read:
                    batches = pq.ParquetFile(file).iter_batches()
                    self._read[str(file)] = [row for batch in batches for row in rows_of(table, batch)]
                rows += self._read[str(file)]
        return rows

    def snapshot(self, part: delta.Part) -> delta.Snapshot:
        return part.snapshot()

    def exists(self, table: str, path: str) -> bool:
        return (self._place(table) / path).exists()

    def young(self, table: str, path: str) -> bool:
        modified = (self._place(table) / path).stat().st_mtime
        return self._world.now.timestamp() - modified < shards.REUSE_WITHIN.total_seconds()

    def version(self, table: str) -> int:
        loaded = self._load(table)
        return loaded.version() if loaded else -1

    # what others do to a table

    def compact(self, table: str) -> bool:
        loaded = self._load(table)
        return bool(loaded) and loaded.optimize.compact()["numFilesRemoved"] > 0

    def restore(self, table: str, version: int) -> bool:
        loaded = self._load(table)
        try:
            assert loaded is not None
            loaded.restore(version)
        except DeltaError:  # files are gone
            return False
        return True

    def delete_day(self, table: str) -> bool:
        loaded = self._load(table)
        return bool(loaded) and loaded.delete(f"dt = '{DAY}'")["num_removed_files"] > 0

    def other_day(self, table: str) -> bool:
        loaded = self._load(table)
        if loaded is None:
            return False
        partition = {"dt": OTHER_DAY} | ({"stage": "rule"} if table == "quarantine" else {})
        folder = "/".join(f"{name}={value}" for name, value in partition.items())
        path = f"{folder}/{self._world.serial():032x}-00000000.parquet"
        file = self._place(table) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        own = pa.schema([f for f in pa.schema(loaded.schema().to_arrow()) if f.name not in partition])
        pq.write_table(own.empty_table(), file)
        application = f"{table}/dt={OTHER_DAY}"
        counted = Transaction(application, (loaded.transaction_version(application) or 0) + 1)
        loaded.create_write_transaction(
            [AddAction(path, file.stat().st_size, dict(partition), 0, True, '{"numRecords": 0}')],
            mode="append",
            schema=loaded.schema(),
            partition_by=list(partition),
            commit_properties=CommitProperties(app_transactions=[counted]),
        )
        return True

    def _vacuum(self, table: str, *, dry: bool) -> list[str]:
        loaded = self._load(table)
        if loaded is None:
            return []
        ahead = datetime.now(UTC) - self._world.now  # the world's clock is behind: its files look that much older
        hours = math.floor((VACUUM_AFTER + ahead) / timedelta(hours=1))
        return loaded.vacuum(retention_hours=hours, dry_run=dry, enforce_retention_duration=False, full=True)

    def doomed(self, table: str) -> list[str]:
        return self._vacuum(table, dry=True)

    def unlink(self, table: str, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._place(table) / path).unlink()

    def vacuum(self, table: str) -> bool:
        return bool(self._vacuum(table, dry=False))
