"""Which instance keeps the runs of a command."""

from pathlib import Path

import pytest

from batch_scoring.cli import instance
from batch_scoring.cli.main import main


def test_the_instance_is_dagster_homes_or_else_that_of_a_working_directory_with_a_dagster_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert instance.home() is None
    (tmp_path / "dagster.yaml").touch()
    assert instance.home() == tmp_path
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    assert instance.home() == tmp_path / "home"


def test_without_an_instance_runs_are_kept_for_the_command_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with instance.opened() as found:
        assert found.is_ephemeral
    assert list(tmp_path.iterdir()) == []


def test_a_dagster_home_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "nowhere"))
    assert main(["backfill", "flight_delay", "2013-07-01", "2013-07-01"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("batch-scoring: ") and str(tmp_path / "nowhere") in said and "Traceback" not in said
