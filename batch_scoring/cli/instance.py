"""Dagster instance of a command: where its runs are recorded."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg


def home() -> Path | None:
    """DAGSTER_HOME; otherwise the working directory if it contains a dagster.yaml; otherwise None."""
    if named := os.environ.get("DAGSTER_HOME"):
        return Path(named)
    return Path.cwd() if Path("dagster.yaml").is_file() else None


@contextlib.contextmanager
def opened() -> Iterator[dg.DagsterInstance]:
    """The instance of `home`, or an ephemeral one."""
    found = home()
    if found is not None:
        os.environ["DAGSTER_HOME"] = str(found)
    with dg.DagsterInstance.ephemeral() if found is None else _get(found) as instance:
        yield instance


def _get(home: Path) -> dg.DagsterInstance:
    """The instance of DAGSTER_HOME; its SQLite databases are created under a lock."""
    from batch_scoring.defs.execution import sqlite_databases  # imported late: it loads SQLAlchemy

    is_local = home.is_absolute() and home.is_dir() and sqlite_databases.files(home)
    with sqlite_databases.created_by_one(home) if is_local else contextlib.nullcontext():
        return dg.DagsterInstance.get()
