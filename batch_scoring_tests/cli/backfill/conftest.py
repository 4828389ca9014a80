"""Locks of each test's own, and an instance that is made once and copied."""

import shutil
import tempfile
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.config.loader import PROJECT


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims of the test's own, and a working directory without a dagster.yaml: a passing instance."""
    for name in ("claims", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "claims"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "claims"))
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture(scope="package")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAGSTER_HOME with the repository's dagster.yaml; its databases take a second to make."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(PROJECT / "dagster.yaml", folder)
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        assert not instance.get_run_records()
    return folder


@pytest.fixture
def home(new_home: Path, tmp_path: Path) -> str:
    """A DAGSTER_HOME of the test's own."""
    return str(shutil.copytree(new_home, tmp_path / "home"))
