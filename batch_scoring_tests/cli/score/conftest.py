"""Locks of each test's own, and a server of processes."""

import tempfile
from multiprocessing import forkserver
from pathlib import Path

import pytest

from batch_scoring_tests.scored_files import SERVER, score_elsewhere


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of the test's own."""
    (tmp_path / "locks").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "locks"))


@pytest.fixture(scope="package", autouse=True)
def _server() -> None:
    """Processes are forked from a server that imports while other tests run."""
    SERVER.set_forkserver_preload([score_elsewhere.__module__])
    forkserver.ensure_running()
