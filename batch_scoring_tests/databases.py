"""Dagster's SQLite databases without work repeated for each event of a run, which is a third of their cost.

Files and rows stay the same. For every event that it stores, Dagster creates a SQLAlchemy engine, which compiles each
statement anew; and Alembic reads all migrations for every database that is created.
"""

from functools import lru_cache
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from sqlalchemy import Engine, create_engine

_MODULES: tuple[Any, ...] = (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)
_from_config = ScriptDirectory.from_config
_scripts: dict[str | None, ScriptDirectory] = {}


def keep_engines() -> None:
    """Cache engines by the address of their database, and Alembic's migrations, for the life of this process."""
    for module in _MODULES:
        assert module.create_engine is create_engine
        module.create_engine = _engine
    ScriptDirectory.from_config = _migrations  # type: ignore[method-assign, assignment]


def _engine(address: str, *, connect_args: dict[str, Any] | None = None, **options: Any) -> Engine:  # noqa: ANN401
    return _kept(address, tuple((connect_args or {}).items()), tuple(options.items()))


@lru_cache(maxsize=32)
def _kept(address: str, connect_args: tuple[tuple[str, Any], ...], options: tuple[tuple[str, Any], ...]) -> Engine:
    return create_engine(address, connect_args=dict(connect_args), **dict(options))


def _migrations(config: Config) -> ScriptDirectory:
    place = config.get_main_option("script_location")
    if place not in _scripts:
        _scripts[place] = _from_config(config)
    return _scripts[place]
