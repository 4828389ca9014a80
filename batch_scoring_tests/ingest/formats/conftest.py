"""A landing folder of the test's own."""

from pathlib import Path

import pytest

from batch_scoring.storage.folders.local import LocalFolder


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path / "landing"))
