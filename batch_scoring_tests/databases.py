"""Dagster's SQLite databases without work repeated for each event of a run, which is a third of their cost.

Files and rows stay the same. Dagster creates a SQLAlchemy engine for every event that it stores in a file, and one for
every instance in memory; an engine compiles each statement anew, so all share what one has compiled. It connects to a
database in memory, and sets that connection up, for every statement. Alembic reads all migrations for every database
that is created.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log import in_memory as events_in_memory
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs import in_memory as runs_in_memory
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

_OF_FILES: tuple[Any, ...] = (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)
_IN_MEMORY: tuple[Any, ...] = (events_in_memory, runs_in_memory)
_compiles = create_engine("sqlite://")
"""The cache finds a compiled statement by its dialect too, so all engines take this one's."""
_from_config = ScriptDirectory.from_config
_scripts: dict[str | None, ScriptDirectory] = {}


def keep_engines() -> None:
    """Cache engines by the address of their database, and Alembic's migrations, for the life of this process."""
    _compiles.connect().close()  # the dialect learns what SQLite can do
    for modules, made in ((_OF_FILES, _engine), (_IN_MEMORY, _pooled)):
        for module in modules:
            assert module.create_engine is create_engine
            module.create_engine = made
    events_in_memory.InMemoryEventLogStorage._connect = _events  # type: ignore[method-assign, assignment]
    runs_in_memory.InMemoryRunStorage.connect = _runs  # type: ignore[method-assign, assignment]
    ScriptDirectory.from_config = _migrations  # type: ignore[method-assign, assignment]


def _engine(address: str, *, connect_args: dict[str, Any] | None = None, **options: Any) -> Engine:  # noqa: ANN401
    return _kept(address, tuple((connect_args or {}).items()), tuple(options.items()))


@lru_cache(maxsize=32)
def _kept(address: str, connect_args: tuple[tuple[str, Any], ...], options: tuple[tuple[str, Any], ...]) -> Engine:
    return _sharing(address, connect_args=dict(connect_args), **dict(options))


def _sharing(address: str, **options: Any) -> Engine:  # noqa: ANN401
    engine = create_engine(address, **options)
    engine.dialect = engine.pool._dialect = _compiles.dialect
    engine._compiled_cache = _compiles._compiled_cache
    return engine


def _pooled(address: str, *, poolclass: type[Any]) -> Engine:
    engine = _sharing(address, poolclass=QueuePool, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    return engine


@contextmanager
def _events(storage: events_in_memory.InMemoryEventLogStorage) -> Iterator[Connection]:
    with storage._db_lock, storage._engine.begin() as connection:
        yield connection


@contextmanager
def _runs(storage: runs_in_memory.InMemoryRunStorage) -> Iterator[Connection]:
    with storage._engine.begin() as connection:
        yield connection


def _migrations(config: Config) -> ScriptDirectory:
    place = config.get_main_option("script_location")
    if place not in _scripts:
        _scripts[place] = _from_config(config)
    return _scripts[place]
