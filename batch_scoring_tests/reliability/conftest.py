"""Fixtures: an S3 store for the tests of this package, and a folder in which fsync costs nothing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_scoring_tests.reliability.store import Store, running_store


@pytest.fixture(scope="package")
def _store() -> Iterator[Store]:
    with running_store() as store:
        yield store


@pytest.fixture
def store(_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Provide S3 as this process and its children access it, initially without faults."""
    for name in ("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in _store.environment.items():
        monkeypatch.setenv(name, value)
    yield _store
    _store.proxy.faults, _store.proxy.dropped, _store.proxy.clock_ahead = [], set(), 0.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Provide a folder in memory, if possible: kill -9 loses nothing there that a disk would keep."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 2**28:
        yield tmp_path
        return
    place = Path(tempfile.mkdtemp(prefix="batch_scoring_", dir=memory))
    yield place
    shutil.rmtree(place, ignore_errors=True)
