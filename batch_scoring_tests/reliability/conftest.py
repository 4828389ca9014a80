"""A folder where fsync costs nothing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


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
