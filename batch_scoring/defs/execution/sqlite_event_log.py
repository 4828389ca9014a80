"""Dagster's event log in SQLite, with connections that stay open: `dagster.yaml` names it for a laptop.

For each event Dagster makes two or three engines, opens a connection with each and closes it again, which writes
SQLite's log back into the file; for each result of a check it asks whether there is a table for it. A small day has 90
events: half of what it costs in a backfill. Files and rows are the same here, so that Dagster's own class goes on with
them when the block is taken out of `dagster.yaml`. A deployment has PostgreSQL and needs none of this.

What a run's process writes down passes through here, so here it gives the sign that it lives (`alive.py`).
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, QueuePool, create_engine

from batch_scoring.defs.execution.sqlite_databases import created_by_one
from batch_scoring.runtime import run_locks

_AT_WORK = (dg.DagsterEventType.RUN_START, dg.DagsterEventType.STEP_START)
"""Events that a process of the run itself writes, before it does anything."""
_ENDED = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)
DATABASES = 8
"""Kept open at most: the index of all runs, and the runs that were last written or read."""


@dataclass(frozen=True)
class _Kept:
    engine: Engine
    inode: int
    """Of the file that its connection has open."""


class EventLog(SqliteEventLogStorage):
    """Dagster's own storage for SQLite, which opens each database once."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        # the rest is done in register_instance: where the log is, only the instance knows
        self._inst_data = inst_data
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._tables: set[str] = set()

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing can be configured: the log is where Dagster has it by default."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> "EventLog":
        """What `dagster.yaml` names, before there is an instance."""
        return cls(inst_data, **config_value)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Open the log of an instance: below its folder, which is a temporary one where DAGSTER_HOME is not set."""
        home = Path(instance.root_directory)
        with created_by_one(home):
            super().__init__(str(home / "history" / "runs"), self._inst_data)
        super().register_instance(instance)
        self._sign = run_locks.Sign(run_locks.folder(instance.root_directory))

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock, self._engine(shard).connect() as connection, connection.begin():
            yield connection

    def _engine(self, shard: str) -> Engine:
        """The engine of a run's database, or of the index."""
        file = Path(self.path_for_shard(shard))
        if shard in self._kept and self._kept[shard].inode != _inode(file):  # removed, maybe by another process
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
        """Whether the index has a table; one that it has once it keeps."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event, and tell those who watch its run: the web server looks at the file, not at SQLite's log."""
        if event.dagster_event and event.dagster_event.event_type in _AT_WORK:
            self._sign.give(event.run_id)
        elif event.dagster_event and event.dagster_event.event_type in _ENDED:
            self._sign.note_end(event.run_id)
        super().store_event(event)
        os.utime(self.path_for_shard(event.run_id))

    def dispose(self) -> None:
        """Close all databases."""
        super().dispose()
        self._sign.withdraw()
        with self._db_lock:
            for shard in list(self._kept):
                self._close(shard)


def _inode(file: Path) -> int:
    """0 if there is no such file."""
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return 0
