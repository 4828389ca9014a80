import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batch_scoring.errors import FileChangedError, OutsideFolderError
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring.storage.folders.s3 import S3Folder


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path / "root"))


def paths(folder: LocalFolder, prefix: str = "") -> list[str]:
    return [file.path for file in folder.list(prefix)]


def test_a_folder_that_is_not_there_holds_no_files(folder: LocalFolder) -> None:
    assert folder.list() == []
    assert folder.list("dt=2024-03-04/") == []


def test_a_listing_is_sorted_by_path_and_cut_by_prefix(folder: LocalFolder) -> None:
    for path in ("dt=2/b", "dt=2/a", "dt=10/a", "dt=2/sub/c", "top"):
        folder.put(path, b"x")
    assert paths(folder) == ["dt=10/a", "dt=2/a", "dt=2/b", "dt=2/sub/c", "top"]
    assert paths(folder, "dt=2/") == ["dt=2/a", "dt=2/b", "dt=2/sub/c"]
    assert paths(folder, "dt=") == ["dt=10/a", "dt=2/a", "dt=2/b", "dt=2/sub/c"]
    assert paths(folder, "dt=2/a") == ["dt=2/a"]
    assert paths(folder, "dt=3/") == []


def test_a_listing_tells_size_and_time_in_utc(folder: LocalFolder) -> None:
    folder.put("a", b"12345")
    os.utime(Path(folder.uri, "a"), (1_700_000_000, 1_700_000_000))
    [file] = folder.list()
    assert file.size == 5
    assert file.modified.isoformat() == "2023-11-14T22:13:20+00:00"


def test_a_token_changes_with_the_content_also_at_equal_size_and_stays_otherwise(folder: LocalFolder) -> None:
    folder.put("a", b"one")
    [first] = folder.list()
    assert folder.list() == [first]
    folder.put("a", b"two")
    [second] = folder.list()
    assert second.token != first.token
    Path(folder.uri, "a").write_bytes(b"three")
    os.utime(Path(folder.uri, "a"), ns=(0, int(first.token.split("-")[0], 16)))  # another size at the first's time
    assert folder.list()[0].token not in (first.token, second.token)


def test_a_conditional_write_replaces_only_the_version_that_was_compared(folder: LocalFolder) -> None:
    folder.put_if("a", b"one", None)
    with pytest.raises(FileChangedError):
        folder.put_if("a", b"two", None)
    [first] = folder.list()
    folder.put_if("a", b"two", first.token)
    with pytest.raises(FileChangedError):
        folder.put_if("a", b"three", first.token)
    assert folder.read("a") == b"two"


def test_of_conditional_writers_at_once_one_succeeds(folder: LocalFolder) -> None:
    folder.put("a", b"0")
    [before] = folder.list()

    def write(name: int) -> bool:
        try:
            folder.put_if("a", f"{name}".encode(), before.token)
        except FileChangedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(1, 30))) == 1


def test_only_the_pinned_version_is_opened(folder: LocalFolder) -> None:
    folder.put("a", b"one")
    [pinned] = folder.list()
    with folder.open("a", pinned.token) as file:
        assert file.read() == b"one"
    folder.put("a", b"two")
    with pytest.raises(FileChangedError, match=f"{folder.uri}/a has changed: version .*, expected {pinned.token}"):
        folder.open("a", pinned.token)
    with folder.open("a") as file:
        assert file.read() == b"two"


def test_a_reader_keeps_the_version_that_it_has_opened(folder: LocalFolder) -> None:
    folder.put("a", b"one")
    with folder.open("a", folder.list()[0].token) as file:
        folder.put("a", b"two")
        assert file.read() == b"one"


def test_a_missing_file_cannot_be_opened(folder: LocalFolder) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        folder.open("nowhere")


def test_a_reader_sees_old_or_new_bytes_whole_while_a_file_is_put(folder: LocalFolder) -> None:
    contents = [bytes([value]) * 200_000 for value in (1, 2)]
    folder.put("a", contents[0])
    stop = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(folder.read("a"))

    reader = threading.Thread(target=read)
    reader.start()
    turn, until = 0, time.monotonic() + 30
    while turn < 100 or (len(seen) < 2 and time.monotonic() < until):  # on a busy machine it may see few turns
        folder.put("a", contents[turn % 2])
        turn += 1
    stop.set()
    reader.join()
    assert seen == set(contents)
    assert paths(folder) == ["a"]


@pytest.mark.parametrize("path", ["../a", "a/../../b", "a/..", "/etc/passwd", "..", "a\\..\\b", "..\\a"])
def test_no_operation_leaves_the_folder(folder: LocalFolder, tmp_path: Path, path: str) -> None:
    folder.put("inner", b"x")
    with folder.scratch() as scratch:
        scratch.write_bytes(b"x")
        for operation in (
            lambda: folder.put(path, b"x"),
            lambda: folder.open(path),
            lambda: folder.read(path),
            lambda: folder.list(path),
            lambda: folder.subfolder(path),
            lambda: folder.put_file(scratch, path),
            lambda: folder.settle([path]),
            lambda: S3Folder("s3://bucket/prefix").key(path),
        ):
            with pytest.raises(OutsideFolderError, match=r"leads out of its folder; expected a relative path without"):
                operation()
    assert [file.name for file in tmp_path.iterdir()] == ["root"]


def test_a_symbolic_link_to_a_folder_is_not_followed(folder: LocalFolder, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.csv").write_bytes(b"x")
    folder.put("dt=1/a", b"x")
    Path(folder.uri, "dt=1", "link").symlink_to(tmp_path / "outside")
    assert paths(folder) == ["dt=1/a"]


def test_a_scratch_file_is_published_whole_and_leaves_nothing_else(folder: LocalFolder) -> None:
    with folder.scratch() as scratch:
        scratch.write_bytes(b"content")
        assert not [path for path in paths(folder) if not path.startswith(".")]
        assert folder.put_file(scratch, "deep/er/a") == 7
    assert paths(folder) == ["deep/er/a"]
    assert folder.read("deep/er/a") == b"content"


def test_a_scratch_file_is_gone_after_an_error(folder: LocalFolder) -> None:
    def fail() -> None:
        with folder.scratch() as scratch:
            scratch.write_bytes(b"half")
            raise RuntimeError("a full disk")

    with pytest.raises(RuntimeError, match="a full disk"):
        fail()
    assert paths(folder) == []


def test_a_put_that_fails_leaves_the_old_file_and_nothing_else(folder: LocalFolder) -> None:
    folder.put("a/b", b"old")
    with pytest.raises(OSError, match="a/b"):
        folder.put("a/b/c", b"new")  # a/b is a file
    assert paths(folder) == ["a/b"]
    assert folder.read("a/b") == b"old"


def test_a_subfolder_holds_the_same_files_under_shorter_paths(folder: LocalFolder) -> None:
    folder.put("state/dt=1/input.json", b"{}")
    below = folder.subfolder("state")
    assert [file.path for file in below.list("dt=")] == ["dt=1/input.json"]
    assert below.uri == f"{folder.uri}/state"


def test_arrow_reads_the_same_paths(folder: LocalFolder) -> None:
    folder.put("a/b", b"bytes")
    with folder.open_arrow("a/b") as file:
        assert file.read() == b"bytes"


def test_settling_a_folder_changes_nothing_in_it(folder: LocalFolder) -> None:
    folder.put("log/1", b"x")
    folder.put("log/2", b"y")
    folder.settle(["log/1", "log/2", "log/3", "none/1"])
    assert [folder.read(path) for path in paths(folder)] == [b"x", b"y"]
