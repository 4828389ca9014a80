"""The Dagster instance of a shell's command: where its runs are recorded."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

ATTEMPTS = 5
"""At opening an instance that another process is just creating."""


def home() -> Path | None:
    """DAGSTER_HOME; else the working directory, if a dagster.yaml stands there; else there is none."""
    if named := os.environ.get("DAGSTER_HOME"):
        return Path(named)
    return Path.cwd() if Path("dagster.yaml").is_file() else None


@contextmanager
def opened() -> Iterator[dg.DagsterInstance]:
    """The instance of `home`; a passing one if there is none."""
    found = home()
    if found is not None:
        os.environ["DAGSTER_HOME"] = str(found)
    with dg.DagsterInstance.ephemeral() if found is None else _get() as instance:
        yield instance


def _get() -> dg.DagsterInstance:
    """The instance of DAGSTER_HOME. Two processes that create its SQLite files at once stumble over each other."""
    from sqlalchemy.exc import OperationalError  # late: it brings the database with it

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return dg.DagsterInstance.get()
        except OperationalError as error:
            if attempt == ATTEMPTS or "already exists" not in str(error):
                raise
            time.sleep(0.2 * attempt)
    raise AssertionError("unreachable")
