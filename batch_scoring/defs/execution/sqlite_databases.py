"""The SQLite databases of a laptop's Dagster instance: created by one process at a time, and mended.

Two processes that create one at once both succeed: the second finds tables without a revision, takes them for those
of an old Dagster, and adds that one's revision to the first's. From then on every command fails, for ever. So they are
created under a lock: by the classes that `dagster.yaml` names whoever opens the instance, `dagster`'s own commands too;
by `instance.opened` also where another `dagster.yaml` has Dagster's. What was created without it this mends:

    DAGSTER_HOME=… python -m batch_scoring.defs.execution.sqlite_databases
"""

import contextlib
import fcntl
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import dagster as dg
import yaml
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sql import get_alembic_config
from dagster._core.storage.sqlite import create_db_conn_string
from dagster._serdes import ConfigurableClassData

from batch_scoring.runtime.printable import shell_word

MEND = "python -m batch_scoring.defs.execution.sqlite_databases"
_LOCK = "history/.lock"
_HEADS = "more than one head"
"""Alembic's words."""
_FOLDERS = {
    "run_storage": ("history", "runs.db"),
    "event_storage": ("history/runs", "index.db"),
    "schedule_storage": ("schedules", "schedules.db"),
}
"""Where Dagster has them by default."""

_here = threading.RLock()
_held: set[Path] = set()

Storage = TypeVar("Storage")


@contextlib.contextmanager
def created_by_one(home: Path) -> Iterator[None]:
    """Open databases of an instance while no other process that does so in here is at it.

    Raises:
        DagsterInvariantViolationError: one was created by two processes at once, and nobody can open it.
    """
    with _here:
        if home in _held:
            yield
            return
        file = home / _LOCK
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _held.add(home)
            try:
                yield
            except CommandError as error:
                if _HEADS not in str(error):
                    raise
                raise dg.DagsterInvariantViolationError(
                    f"{home}: a database of this instance was created by two processes at once, and has two revisions; "
                    f"mend it: DAGSTER_HOME={shell_word(str(home))} {MEND}"
                ) from error
            finally:
                _held.remove(home)


class InPlace:
    """A storage of Dagster's that is where Dagster has it by default; it opens when it is told of its instance."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        # the rest is done in register_instance: where it is, only the instance knows
        self._inst_data = inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing can be configured: it is where Dagster has it by default."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """What `dagster.yaml` names, before there is an instance."""
        return cls(inst_data, **config_value)


class RunStorage(InPlace, SqliteRunStorage):
    """Dagster's own storage for runs, created by one process at a time."""

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Open the database of an instance, below its folder; create it if there is none."""
        home = Path(instance.root_directory)
        folder = str(home / "history")
        with created_by_one(home):
            SqliteRunStorage.from_local(folder)
        SqliteRunStorage.__init__(self, create_db_conn_string(folder, "runs"), self._inst_data)
        super().register_instance(instance)


class ScheduleStorage(InPlace, SqliteScheduleStorage):
    """Dagster's own storage for schedules and sensors, created by one process at a time."""

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Open the database of an instance, below its folder; create it if there is none."""
        home = Path(instance.root_directory)
        folder = str(home / "schedules")
        with created_by_one(home):
            SqliteScheduleStorage.from_local(folder)
        SqliteScheduleStorage.__init__(self, create_db_conn_string(folder, "schedules"), self._inst_data)
        super().register_instance(instance)


def files(home: Path) -> list[Path]:
    """The databases of an instance that would be SQLite's, whether they are there or not.

    Raises:
        Exception: Dagster does not take its settings.
    """
    ref = InstanceRef.from_dir(str(home))
    found = []
    for kind, (folder, name) in _FOLDERS.items():
        data = getattr(ref, f"{kind}_data")
        if data is not None and (data.class_name.startswith("Sqlite") or data.module_name.startswith("batch_scoring.")):
            base = yaml.safe_load(data.config_yaml).get("base_dir") or home / folder
            found.append(Path(base, name))
    return found


def revisions(file: Path) -> list[str]:
    """The revisions that a database names; none if it is not there. One of which nothing is wrong names one."""
    if not file.is_file():
        return []
    with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
        try:
            return [row[0] for row in database.execute("SELECT version_num FROM alembic_version ORDER BY 1")]
        except sqlite3.OperationalError:  # another process is just creating it
            return []


def mend(home: Path) -> list[str]:
    """Let the databases that two processes have created name one revision, the newest; what was done, in words.

    The tables are those of the newest: whoever came second has found them there.
    """
    said = []
    with created_by_one(home):
        for file in files(home):
            found = revisions(file)
            if len(found) > 1 and (newest := _newest(found)):
                with contextlib.closing(sqlite3.connect(file)) as database, database:
                    database.execute("DELETE FROM alembic_version WHERE version_num != ?", (newest,))
                said.append(f"{file}: of the revisions {', '.join(found)} {newest} has stayed")
    return said


def _newest(found: list[str]) -> str | None:
    """The revision that comes after all others; None if Dagster knows none."""
    scripts = ScriptDirectory.from_config(get_alembic_config(sqlite_run_storage.__file__))
    for revision in found:
        with contextlib.suppress(RevisionError):  # of a newer Dagster
            before = {script.revision for script in scripts.iterate_revisions(revision, "base")}
            if before.issuperset(found):
                return revision
    return None


def main() -> int:
    """Mend the databases of DAGSTER_HOME and say so."""
    home = os.environ.get("DAGSTER_HOME", "")
    if not Path(home).is_absolute() or not Path(home).is_dir():
        sys.stderr.write(f"databases: DAGSTER_HOME is {home!r}; expected the absolute path of the instance's folder\n")
        return 2
    said = mend(Path(home))
    left = [str(file) for file in files(Path(home)) if len(revisions(file)) > 1]
    sys.stdout.writelines(f"{line}\n" for line in said or ([] if left else [f"{home}: nothing to mend"]))
    if left:
        sys.stderr.write(f"databases: {', '.join(left)}: revisions that this Dagster does not know; take a newer one\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
