"""Files that are finished before anybody sees them, on a local folder and on S3."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from batch_scoring.errors import TakenError
from batch_scoring.storage.folders import staged_files
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring.storage.folders.s3 import S3Folder
from batch_scoring_tests.reliability.store import Store


def files(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones included."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_is_seen_whole_under_its_name_and_replaces_another_only_if_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuses(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    if not has_links:
        monkeypatch.setattr(os, "link", refuses)
    place = LocalFolder(str(tmp_path))
    with staged_files.staged(place, "x") as file:
        file.scratch.write_bytes(b"one")
        file.finish()
        assert file.fate == "unseen" and not (tmp_path / "x").exists()
        file.show(replaces=False)
        assert file.fate == "shown"
    with staged_files.staged(place, "x") as file:
        file.scratch.write_bytes(b"two")
        with pytest.raises(TakenError, match="x was written by another process meanwhile"):
            file.show(replaces=False)
        assert (file.fate, (tmp_path / "x").read_bytes()) == ("unseen", b"one")
        file.show(replaces=True)
    assert files(tmp_path) == {"x": b"two"}


def test_of_a_file_that_is_never_shown_nothing_remains(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged_files.staged(LocalFolder(str(tmp_path)), "x") as file:
        file.scratch.write_bytes(b"half")
        raise ZeroDivisionError
    assert files(tmp_path) == {}


# on S3


@pytest.fixture
def bucket(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty one; scratch files are the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return store.new_bucket()


@pytest.mark.s3
def test_a_file_of_several_parts_arrives_whole(
    store: Store, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staged_files, "PART", 5 * 1024 * 1024)
    data = os.urandom(11 * 1024 * 1024)
    place = S3Folder(f"s3://{bucket}/large")
    with staged_files.staged(place, "x") as file:
        file.scratch.write_bytes(data)
        file.finish()
        assert place.list() == []
        file.show(replaces=False)
    assert place.read("x") == data
    with staged_files.staged(place, "x") as file, pytest.raises(TakenError):
        file.scratch.write_bytes(b"")
        file.finish()
        file.show(replaces=False)
    assert place.read("x") == data and [file.path for file in place.list()] == ["x"]
    assert not store.client_of_moto().list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.s3
def test_an_upload_that_was_completed_by_a_request_without_an_answer_is_known_by_its_owner(
    store: Store, bucket: str
) -> None:
    """moto answers a repeated completion with success, S3 may say that the object exists."""
    place, client = S3Folder(f"s3://{bucket}/one"), store.client_of_moto()
    for key, owner in (("mine", None), ("other", "another upload")):
        with staged_files.staged(place, key) as file:
            assert isinstance(file, staged_files._Upload)
            file.scratch.write_bytes(b"x")
            file.finish()
            client.put_object(Bucket=bucket, Key=f"one/{key}", Metadata={staged_files._OWNER: owner or file._owner})
            if owner is None:
                file.show(replaces=False)
            else:
                with pytest.raises(TakenError):
                    file.show(replaces=False)
