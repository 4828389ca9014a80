"""Trials of exports to a real PostgreSQL: `python -m batch_scoring_tests.reliability.exports_postgres`."""

import multiprocessing
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg2
from adbc_driver_manager import dbapi

from batch_scoring.delivery.exports.postgres.sink import PostgresSink
from batch_scoring_tests.postgres_server import Server, running_server, server_user
from batch_scoring_tests.reliability.disks import fill, mounted
from batch_scoring_tests.reliability.emptied import emptied
from batch_scoring_tests.reliability.export_trials import (
    EXPORT,
    PIPELINE,
    TRIALS,
    OnServer,
    Place,
    Rows,
    print_table,
    run,
    size_wanted,
)

multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])

_QUOTA = """
    CREATE FUNCTION quota() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
    CREATE TRIGGER quota AFTER INSERT ON {0} FOR EACH STATEMENT EXECUTE FUNCTION quota()
"""


@dataclass(frozen=True)
class PostgresPlace(OnServer[Server]):
    """A table in a server."""

    table: str = "results"
    points = ("before the commit", "after the commit")

    def sink(self) -> PostgresSink:
        """The sink."""
        return PostgresSink(self.server.url, self.table, PIPELINE, EXPORT, "id")

    def section(self, unique: str) -> dict[str, Any]:
        """See `ExportedPlace.section`."""
        return {"to": "postgres", "url_from": "RESULTS", "table": unique}

    def environment(self) -> dict[str, str]:
        """See `ExportedPlace.environment`."""
        return {"RESULTS": self.server.url}

    def shown(self, day: str) -> Rows:
        """The rows of a day as a reader sees them."""
        try:
            return self.server.query(f"SELECT id, score FROM {self.table} WHERE dt = %s ORDER BY id", [day])
        except psycopg2.errors.UndefinedTable:
            return []

    def arm(self, point: str, kill: Callable[[], None]) -> None:
        """Have this process killed at the commit of the rows: the one that creates the tables comes before any row."""
        commit, ingest = dbapi.Connection.commit, dbapi.Cursor.adbc_ingest
        ingested = []

        def committed(connection: dbapi.Connection) -> None:
            if ingested and point == self.points[0]:
                kill()
            commit(connection)
            if ingested:
                kill()

        dbapi.Connection.commit = committed  # type: ignore[method-assign]
        dbapi.Cursor.adbc_ingest = lambda *taken, **options: (  # type: ignore[method-assign, assignment]
            ingested.append(taken) or ingest(*taken, **options)
        )

    @contextmanager
    def little_space(self) -> Iterator[tuple[Place, Callable[[], Callable[[], None]]]]:
        """A table on a disk of 4 MB; where none may be mounted, a trigger says what the disk would."""
        with mounted() as disk, self._schema("small"):
            small = replace(self, table="small.results")
            if disk is None:
                yield small, lambda: _quota(small)
                return
            if user := server_user():
                shutil.chown(disk, user)
            self.server.query(f"CREATE TABLESPACE small LOCATION '{disk}'")
            self.server.query("ALTER ROLE owner SET default_tablespace = small")
            try:
                yield small, lambda: fill(disk)
            finally:
                self.server.query("ALTER ROLE owner RESET default_tablespace")
                self.server.query("DROP SCHEMA small CASCADE")
                self.server.query("DROP TABLESPACE small")

    @contextmanager
    def _schema(self, name: str) -> Iterator[None]:
        self.server.query(f"CREATE SCHEMA {name}")
        yield
        self.server.query(f"DROP SCHEMA IF EXISTS {name} CASCADE")


def _quota(place: PostgresPlace) -> Callable[[], None]:
    place.server.query(_QUOTA.format(place.table))
    return lambda: place.server.query("DROP FUNCTION quota CASCADE") and None


def main() -> int:
    """Run the trials; return 1 if there was any violation."""
    size = size_wanted(__doc__)
    with running_server() as server, mounted() as disk:
        print("full:", "a trigger with a full disk's error" if disk is None else "a disk of 4 MB")
        return 1 if print_table(run(PostgresPlace(server), size, (*TRIALS, emptied))) else 0


if __name__ == "__main__":
    sys.exit(main())
