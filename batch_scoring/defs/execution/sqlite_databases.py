"""SQLite databases of a laptop's Dagster instance: created under a lock, and repaired.

If two processes create a database at the same time, both succeed: the second finds tables without a revision, takes
them for those of an old Dagster and adds that revision to the first one. From then on every command fails. So databases
are created under a lock: in every command that opens the instance, by the storage classes that `dagster.yaml` names; in
our own commands also by `instance.opened`, for a `dagster.yaml` that names Dagster's classes. To repair a database:

    DAGSTER_HOME=… batch-scoring repair-instance
"""

import contextlib
import fcntl
import inspect
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import dagster as dg
import yaml
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from batch_scoring.dagster_internals import (
    ConfigurableClassData,
    InstanceRef,
    SqliteRunStorage,
    SqliteScheduleStorage,
    create_db_conn_string,
    get_alembic_config,
)
from batch_scoring.runtime.printable import shell_word

REPAIR = "batch-scoring repair-instance"
_LOCK = "history/.lock"
_HEADS = "more than one head"
"""Part of Alembic's message."""
_FOLDERS = {
    "run_storage": ("history", "runs.db"),
    "event_storage": ("history/runs", "index.db"),
    "schedule_storage": ("schedules", "schedules.db"),
}
"""Dagster's default folders and file names."""

_here = threading.RLock()
_held: set[Path] = set()

Storage = TypeVar("Storage")


@contextlib.contextmanager
def created_by_one(home: Path) -> Iterator[None]:
    """Hold the lock under which databases of an instance are created.

    Raises:
        DagsterInvariantViolationError: a database was created by two processes at once and cannot be opened.
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
                    f"repair it: DAGSTER_HOME={shell_word(str(home))} {REPAIR}"
                ) from error
            finally:
                _held.remove(home)


class InPlace:
    """A storage of Dagster's in its default folder, opened when its instance is registered."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        # the rest happens in register_instance: only the instance knows the folder
        self._inst_data = inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """No configuration: the folder is Dagster's default."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Create the storage that `dagster.yaml` names, before there is an instance."""
        return cls(inst_data, **config_value)


class RunStorage(InPlace, SqliteRunStorage):
    """Dagster's run storage, created by one process at a time."""

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Open the database below the instance's folder; create it if there is none."""
        home = Path(instance.root_directory)
        folder = str(home / "history")
        with created_by_one(home):
            SqliteRunStorage.from_local(folder)
        SqliteRunStorage.__init__(self, create_db_conn_string(folder, "runs"), self._inst_data)
        super().register_instance(instance)


class ScheduleStorage(InPlace, SqliteScheduleStorage):
    """Dagster's storage for schedules and sensors, created by one process at a time."""

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Open the database below the instance's folder; create it if there is none."""
        home = Path(instance.root_directory)
        folder = str(home / "schedules")
        with created_by_one(home):
            SqliteScheduleStorage.from_local(folder)
        SqliteScheduleStorage.__init__(self, create_db_conn_string(folder, "schedules"), self._inst_data)
        super().register_instance(instance)


def files(home: Path) -> list[Path]:
    """Paths of an instance's SQLite databases, whether they exist or not.

    Raises:
        Exception: Dagster refuses the instance's settings.
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
    """Schema revisions in a database: one if it is sound, none if it does not exist."""
    if not file.is_file():
        return []
    with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
        try:
            return [row[0] for row in database.execute("SELECT version_num FROM alembic_version ORDER BY 1")]
        except sqlite3.OperationalError:  # another process is creating it
            return []


def repair(home: Path) -> list[str]:
    """Repair databases that two processes have created: keep the newest revision only. Returns a line per repair.

    The tables already have the newest schema, since the second process has found them complete.
    """
    repairs = []
    with created_by_one(home):
        for file in files(home):
            found = revisions(file)
            if len(found) > 1 and (newest := _newest(found)):
                with contextlib.closing(sqlite3.connect(file)) as database, database:
                    database.execute("DELETE FROM alembic_version WHERE version_num != ?", (newest,))
                repairs.append(f"{file}: of the revisions {', '.join(found)} only {newest} is kept")
    return repairs


def _newest(found: list[str]) -> str | None:
    """The revision that comes after all others; None if Dagster does not know them."""
    scripts = ScriptDirectory.from_config(get_alembic_config(inspect.getfile(SqliteRunStorage)))
    for revision in found:
        with contextlib.suppress(RevisionError):  # of a newer Dagster
            before = {script.revision for script in scripts.iterate_revisions(revision, "base")}
            if before.issuperset(found):
                return revision
    return None
