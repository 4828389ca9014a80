"""The databases of an instance that several processes open first, at once."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.config.loader import PROJECT
from batch_scoring.defs.execution import sqlite_databases

FIRST = "import dagster as dg\nwith dg.DagsterInstance.get() as i: i.get_runs_count()"
OURS = "from batch_scoring.cli.instance import opened\nwith opened() as i: i.get_runs_count()"
OLD = "5771160a95ad"
"""What Dagster takes tables without a revision for."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME with the repository's dagster.yaml, in which nothing has happened."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    return folder


def at_once(program: str, folder: Path, processes: int = 3) -> list[int]:
    """The exit codes of processes that open an instance at the same moment: they wait for a file."""
    wait = (
        f"import pathlib, time, dagster, sqlalchemy, alembic\nwhile not pathlib.Path({str(folder / 'go')!r}).exists(): "
    )
    wait += "time.sleep(0.001)\n"
    started = [subprocess.Popen([sys.executable, "-c", wait + program], cwd=folder) for _ in range(processes)]
    (folder / "go").touch()
    return [process.wait(60) for process in started]


def state(home: Path) -> dict[str, list[str]]:
    return {file.name: sqlite_databases.revisions(file) for file in sqlite_databases.files(home)}


def test_first_commands_at_once_leave_an_instance_that_opens(home: Path, tmp_path: Path) -> None:
    assert at_once(FIRST, tmp_path) == [0] * 3
    found = state(home)
    assert found.keys() == {"runs.db", "index.db", "schedules.db"}
    assert all(len(revisions) == 1 and OLD not in revisions for revisions in found.values()), found


def test_commands_of_ours_create_an_instance_of_dagsters_own_storages_one_at_a_time(home: Path, tmp_path: Path) -> None:
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert at_once(OURS, tmp_path) == [0] * 3
    assert all(len(revisions) == 1 and OLD not in revisions for revisions in state(home).values())


def test_what_two_have_created_is_said_and_repaired_and_its_runs_are_kept(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        instance.create_run_for_job(dg.GraphDefinition(name="g", node_defs=[]).to_job())
    before = state(home)
    tear(home)
    with pytest.raises(
        dg.DagsterInvariantViolationError, match=r"repair it: DAGSTER_HOME=\S+ batch-scoring repair-instance"
    ):
        dg.DagsterInstance.get()
    assert len(sqlite_databases.repair(home)) == 3
    assert state(home) == before
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs_count() == 1
    assert sqlite_databases.repair(home) == []


def test_an_instance_of_postgresql_has_no_files_and_its_folder_may_be_read_only(tmp_path: Path) -> None:
    block = "storage: {postgres: {postgres_url: 'postgresql://u:p@h/d'}}\n"
    (tmp_path / "dagster.yaml").write_text(block)
    assert sqlite_databases.files(tmp_path) == []


def test_an_instance_where_its_settings_say_is_found(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(f"storage: {{sqlite: {{base_dir: {tmp_path}/elsewhere}}}}\n")
    assert [str(file.relative_to(tmp_path)) for file in sqlite_databases.files(tmp_path)] == [
        "elsewhere/history/runs.db",
        "elsewhere/history/runs/index.db",
        "elsewhere/schedules/schedules.db",
    ]


def tear(home: Path, revision: str = OLD) -> None:
    """Leave what two processes leave that create the databases at once."""
    for file in sqlite_databases.files(home):
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            database.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
