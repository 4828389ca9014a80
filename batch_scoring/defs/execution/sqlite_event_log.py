"""Dagster's SQLite event log with connections that stay open, for a laptop's `dagster.yaml`.

For every event Dagster's own class creates two or three engines, opens a connection with each and closes it, which
writes SQLite's log back into the file; for every check result it asks whether its table exists. A small day has 90
events, which is half of its cost in a backfill. Files and rows are the same here, so that Dagster's class can continue
with them when the block is removed from `dagster.yaml`. A deployment has PostgreSQL and needs none of this.

All events of a run's process pass through here, so this is where it takes the lock of its run (`runtime/run_locks.py`).
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from sqlalchemy import Connection, Engine, QueuePool, create_engine

from batch_scoring.dagster_internals import SQLITE_BUSY_TIMEOUT_SECONDS, ConfigurableClassData, SqliteEventLogStorage
from batch_scoring.defs.execution.sqlite_databases import created_by_one
from batch_scoring.runtime import run_locks

_AT_WORK = (dg.DagsterEventType.RUN_START, dg.DagsterEventType.STEP_START)
"""Events that a run's own process stores before it does anything else."""
_ENDED = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)
DATABASES = 8
"""Databases that stay open: the index of all runs, and the runs last written or read."""


@dataclass(frozen=True)
class _Kept:
    engine: Engine
    inode: int
    """Inode of the open file."""


class EventLog(SqliteEventLogStorage):
    """Dagster's SQLite storage with one open connection per database."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        # the rest happens in register_instance: only the instance knows the folder
        self._inst_data = inst_data
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._tables: set[str] = set()

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """No configuration: the folder is Dagster's default."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> "EventLog":
        """Create the storage that `dagster.yaml` names, before there is an instance."""
        return cls(inst_data, **config_value)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Open the log below the instance's folder, which is temporary if DAGSTER_HOME is not set."""
        home = Path(instance.root_directory)
        with created_by_one(home):
            super().__init__(str(home / "history" / "runs"), self._inst_data)
        super().register_instance(instance)
        self._run_lock = run_locks.RunLock(run_locks.folder(instance.root_directory))

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock, self._engine(shard).connect() as connection, connection.begin():
            yield connection

    def _engine(self, shard: str) -> Engine:
        """Engine of a run's database, or of the index."""
        file = Path(self.path_for_shard(shard))
        if shard in self._kept and self._kept[shard].inode != _inode(file):  # deleted, perhaps by another process
            self._close(shard)
            self._initialized_dbs.discard(shard)
        if shard not in self._kept:
            engine = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=QueuePool,
                pool_size=1,
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            )
            if shard not in self._initialized_dbs or not file.exists():
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            self._kept[shard] = _Kept(engine, _inode(file))
            if len(self._kept) > DATABASES:
                self._close(next(iter(self._kept)))
        self._kept.move_to_end(shard)
        return self._kept[shard].engine

    def _close(self, shard: str) -> None:
        self._kept.pop(shard).engine.dispose()

    def has_table(self, table_name: str) -> bool:
        """Whether the index has a table; remembered once it does."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event, and touch the run's file: the web server watches it, not SQLite's log."""
        if event.dagster_event and event.dagster_event.event_type in _AT_WORK:
            self._run_lock.acquire(event.run_id)
        elif event.dagster_event and event.dagster_event.event_type in _ENDED:
            self._run_lock.note_end(event.run_id)
        super().store_event(event)
        os.utime(self.path_for_shard(event.run_id))

    def dispose(self) -> None:
        """Close all databases."""
        super().dispose()
        self._run_lock.release()
        with self._db_lock:
            for shard in list(self._kept):
                self._close(shard)


def _inode(file: Path) -> int:
    """Inode of a file; 0 if it does not exist."""
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return 0
