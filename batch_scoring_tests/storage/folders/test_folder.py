"""What holds for the paths of every folder. What local ones and S3 do stands in test_local.py and test_s3.py."""

import pytest

from batch_scoring.storage.folders.folder import inside


@pytest.mark.parametrize("path", ["a", "a/b", "a..b", "..a", "a b/ü.csv", ".hidden", ""])
def test_ordinary_paths_stay_inside(path: str) -> None:
    assert inside(path) == path
