"""What `S3Folder` promises, against moto's server."""

import collections
import itertools
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_scoring.config.spec import Csv
from batch_scoring.errors import FileChangedError, OutsideFolderError, StoreError
from batch_scoring.ingest import landing_files
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.s3 import S3Folder
from batch_scoring_tests.reliability.proxy import Action, Fault
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import DAY

pytestmark = pytest.mark.s3

MIB = 1024 * 1024


@pytest.fixture
def place(store: Store) -> S3Folder:
    return S3Folder(f"s3://{store.new_bucket()}/some/prefix")


def paths(folder: S3Folder, prefix: str = "") -> list[str]:
    return [file.path for file in folder.list(prefix)]


def test_a_file_that_is_put_is_read_listed_and_replaced(place: S3Folder) -> None:
    assert place.list() == []
    place.put("dt=1/a", b"one")
    [first] = place.list()
    assert (first.path, first.size, first.modified.tzname()) == ("dt=1/a", 3, "UTC")
    assert place.read("dt=1/a") == b"one"
    place.put("dt=1/a", b"two")
    [second] = place.list()
    assert second.token != first.token
    assert place.read("dt=1/a") == b"two"
    place.put("dt=1/a", b"one")
    assert place.list()[0].token == first.token


def test_more_files_than_two_pages_are_listed_in_order_and_by_prefix(store: Store) -> None:
    bucket = store.new_bucket()
    for n in range(120):
        store.client_of_moto().put_object(Bucket=bucket, Key=f"p/dt=1/{n:04d}", Body=b"x")
    for key in ("p/dt=10/a", "p/dt=1", "px/dt=1/a", "other", "p/dt=1/folder/"):
        store.client_of_moto().put_object(Bucket=bucket, Key=key, Body=b"")
    place = S3Folder(f"s3://{bucket}/p")
    before = store.proxy.statuses["GET", 200]
    assert paths(place, "dt=1/") == [f"dt=1/{n:04d}" for n in range(120)]
    assert store.proxy.statuses["GET", 200] - before == 3
    assert paths(place, "dt=10/") == ["dt=10/a"]
    assert len(place.list("dt=1")) == 122
    assert paths(S3Folder(f"s3://{bucket}"), "other") == ["other"]


def test_a_key_that_no_path_can_have_is_in_trouble_and_the_others_are_files(place: S3Folder, store: Store) -> None:
    for key in ("dt=1/a.csv", "dt=1/b\\c.csv", "dt=1/../d.csv"):
        store.client_of_moto().put_object(Bucket=place.bucket, Key=f"some/prefix/{key}", Body=b"x")
    troubled = {file.path: file.trouble.reason for file in place.look("dt=1/") if file.trouble}
    assert [file.path for file in place.look("dt=1/") if not file.trouble] == ["dt=1/a.csv"]
    assert "a backslash" in troubled["dt=1/b\\c.csv"] and "'..'" in troubled["dt=1/../d.csv"]


def test_a_subfolder_is_the_same_place(place: S3Folder) -> None:
    place.subfolder("state").put("dt=1/input.json", b"{}")
    assert paths(place) == ["state/dt=1/input.json"]
    assert place.subfolder("state").uri == f"{place.uri}/state"
    assert open_folder(f"{place.uri}/").read("state/dt=1/input.json") == b"{}"


def test_a_missing_file_is_said_to_be_missing(place: S3Folder) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is no {place.uri}/nowhere"):
        place.open("nowhere")


def test_any_place_of_a_file_can_be_read(place: S3Folder) -> None:
    content = bytes(range(256)) * 40_000
    place.put("a", content)
    with place.open("a") as file:
        assert file.seek(-5, 2) == len(content) - 5
        assert file.read() == content[-5:]
        assert file.read(1) == b""
        file.seek(5 * MIB)
        assert file.read(10) == content[5 * MIB : 5 * MIB + 10]
        assert file.tell() == 5 * MIB + 10
        file.seek(0)
        assert file.read() == content


def test_only_the_pinned_version_is_opened(place: S3Folder) -> None:
    place.put("a", b"one")
    [pinned] = place.list()
    with place.open("a", pinned.token) as file:
        assert file.read() == b"one"
    place.put("a", b"two")
    with pytest.raises(FileChangedError, match=f"{place.uri}/a has changed; expected version {pinned.token}"):
        place.open("a", pinned.token)


def test_a_whole_file_is_read_in_one_request(place: S3Folder, store: Store) -> None:
    place.put("a", bytes(6 * MIB))
    before = store.proxy.statuses.total()
    assert len(place.read("a")) == 6 * MIB
    assert store.proxy.statuses.total() - before == 1


def test_a_whole_file_that_others_replace_all_the_time_is_read_as_one_of_its_versions(place: S3Folder) -> None:
    contents = [bytes([n]) * 1000 for n in range(4)]
    place.put("a", contents[0])
    over = threading.Event()

    def replace() -> None:
        for content in itertools.cycle(contents):
            if over.is_set():
                return
            place.put("a", content)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        assert {place.read("a") for _ in range(100)} <= set(contents)
    finally:
        over.set()
        writer.join()


@pytest.mark.parametrize("what", ["replaced", "removed"])
def test_a_file_that_changes_while_it_is_read_is_an_error_and_never_a_mix(
    place: S3Folder, store: Store, what: str
) -> None:
    place.put("a", b"1" * 12 * MIB)
    with place.open("a", place.list()[0].token) as file:
        assert set(file.read(MIB)) == {ord("1")}
        if what == "replaced":
            place.put("a", b"2" * 12 * MIB)
        else:
            store.client_of_moto().delete_object(Bucket=place.bucket, Key="some/prefix/a")
        with pytest.raises(FileChangedError, match="has changed"):
            file.read(8 * MIB)


def test_a_landing_file_that_is_replaced_under_its_reader_is_reported_as_changed(store: Store) -> None:
    place = S3Folder(f"s3://{store.new_bucket()}/landing")
    files = []
    for seed in range(2):  # three row groups of 4.8 MB each
        values = np.random.default_rng(seed).random(1_800_000)
        pq.write_table(pa.table({"x": values}), sink := pa.BufferOutputStream(), row_group_size=600_000)
        files.append(sink.getvalue().to_pybytes())
    place.put(f"dt={DAY}/a.parquet", files[0])
    [file] = landing_files.list_day(place, DAY)
    with pytest.raises(FileChangedError), landing_files.open_rows(place, file, Csv()) as rows:
        blocks = rows.read(0, 1_800_000)
        next(blocks)
        place.put(f"dt={DAY}/a.parquet", files[1])
        collections.deque(blocks)


def test_a_scratch_file_is_uploaded_whole_under_its_name_and_gone_from_the_machine(place: S3Folder) -> None:
    content = bytes(range(256)) * 34_000  # more than one part of 8 MiB
    with place.scratch() as scratch:
        scratch.write_bytes(content)
        assert place.list() == []
        assert place.put_file(scratch, "deep/er/a") == len(content)
    assert not scratch.exists()
    assert not scratch.parent.exists()
    assert paths(place) == ["deep/er/a"]
    assert place.read("deep/er/a") == content


def test_a_scratch_file_that_is_never_published_leaves_nothing(place: S3Folder) -> None:
    with pytest.raises(RuntimeError), place.scratch() as scratch:
        scratch.write_bytes(b"half")
        raise RuntimeError
    assert not scratch.parent.exists()
    assert place.list() == []


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/etc/passwd", "..", "a\\..\\b"])
def test_no_operation_leaves_the_folder(place: S3Folder, tmp_path: Path, path: str) -> None:
    scratch = tmp_path / "scratch"
    scratch.write_bytes(b"x")
    for operation in (
        lambda: place.put(path, b"x"),
        lambda: place.open(path),
        lambda: place.open_arrow(path),
        lambda: place.read(path),
        lambda: place.list(path),
        lambda: place.subfolder(path),
        lambda: place.put_file(scratch, path),
    ):
        with pytest.raises(OutsideFolderError, match="leads out of its folder"):
            operation()
    assert S3Folder(f"s3://{place.bucket}").list() == []


@pytest.mark.parametrize("action", ["500", "503", "reset", "lose answer", "cut short"])
def test_every_operation_comes_through_a_failing_store(
    place: S3Folder, store: Store, tmp_path: Path, action: str
) -> None:
    content = b"content" * 1000
    place.put("a", content)
    scratch = tmp_path / "scratch"
    scratch.write_bytes(content)

    def read_with_arrow() -> bytes:
        with place.open_arrow("a") as file:
            file.seek(file.size() - 8)
            return bytes(file.read(8))

    operations = {
        "list": lambda: [file.size for file in place.list()],
        "read": lambda: place.read("a"),
        "arrow": read_with_arrow,
        "put": lambda: place.put("a", content),
        "put_file": lambda: place.put_file(scratch, "a"),
    }
    for name, operation in operations.items():
        if action == "cut short" and name in ("put", "put_file"):
            continue  # their answers have no bodies
        right = operation()
        store.proxy.faults = [fault := Fault(action, "^GET" if action == "cut short" else ".", times=2)]  # type: ignore[arg-type]
        assert operation() == right
        assert fault.hits, name
    assert place.read("a") == content


@pytest.mark.parametrize(("action", "error"), [("403", PermissionError), ("500", StoreError)])
def test_what_lasts_is_an_os_error_that_says_where(
    place: S3Folder, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Action, error: type[OSError]
) -> None:
    place.put("a", b"x")
    scratch = tmp_path / "scratch"
    scratch.write_bytes(b"x")
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    store.proxy.faults = [Fault(action)]
    for operation in (
        place.list,
        lambda: place.read("a"),
        lambda: place.open("a"),
        lambda: place.put("a", b""),
        lambda: place.put_file(scratch, "b"),
    ):
        with pytest.raises(OSError, match=place.uri) as caught:
            operation()
        assert isinstance(caught.value, error)


@pytest.mark.usefixtures("store")
def test_a_bucket_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(FileNotFoundError, match="there is no s3://no-such-bucket/a"):
        S3Folder("s3://no-such-bucket").read("a")
