"""The folder at an address."""

from pathlib import Path

import pytest

from batch_scoring.storage.folders.addresses import open_folder


def test_addresses_say_what_kind_of_folder_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_folder("data").uri == str(tmp_path / "data")
    assert open_folder("data").is_local
    assert open_folder("s3://bucket/prefix/").uri == "s3://bucket/prefix"
    assert not open_folder("s3://bucket").is_local
    with pytest.raises(ValueError, match="names no bucket; expected s3://bucket/prefix"):
        open_folder("s3:///prefix")
    with pytest.raises(ValueError, match="'gs://bucket': unsupported storage; expected a path or s3://"):
        open_folder("gs://bucket")
