"""The subcommand `repair-instance` on databases that two processes created."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.cli.main import main
from batch_scoring.config.loader import PROJECT
from batch_scoring.defs.execution import sqlite_databases

OLD = "5771160a95ad"
"""What Dagster takes tables without a revision for."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME with the repository's dagster.yaml, whose databases are there."""
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get():
        pass
    return tmp_path


def add_revision(home: Path, revision: str) -> None:
    for file in sqlite_databases.files(home):
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            database.execute("INSERT INTO alembic_version VALUES (?)", (revision,))


def revisions(home: Path) -> list[list[str]]:
    return [sqlite_databases.revisions(file) for file in sqlite_databases.files(home)]


def test_the_newest_revision_is_kept_and_a_second_time_there_is_nothing_to_do(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = revisions(home)
    add_revision(home, OLD)
    assert main(["repair-instance"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 3 and said.err == "" and revisions(home) == before
    assert main(["repair-instance"]) == 0
    assert capsys.readouterr().out == f"{home}: nothing to repair\n"


def test_a_revision_that_this_dagster_does_not_know_is_left_alone(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_revision(home, "of a newer one")
    before = revisions(home)
    assert main(["repair-instance"]) == 1 and revisions(home) == before
    said = capsys.readouterr()
    assert "revisions that this Dagster does not know" in said.err and said.out == ""


@pytest.mark.parametrize("name", ["", "no/absolute/path", "/there/is/none"])
def test_the_home_must_be_a_folder(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", name)
    assert main(["repair-instance"]) == 2 and f"DAGSTER_HOME is {name!r}; expected" in capsys.readouterr().err
