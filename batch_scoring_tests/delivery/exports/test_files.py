"""Exports to files on a disk and on S3, read back by other libraries than those that wrote them."""

import csv
import gzip
import hashlib
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from batch_scoring.delivery.exports import files
from batch_scoring.delivery.exports.files import FileSink, Manifest
from batch_scoring.delivery.exports.sink import Delivered, Delivery, Version
from batch_scoring.errors import SinkError, SinkRefusedError
from batch_scoring.storage import row_files
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.folder import Folder
from batch_scoring_tests.deliveries import delivery_of
from batch_scoring_tests.reliability.store import Store

DAY = "2026-11-28"
ROWS = pa.table(
    {
        "id": ["1", "a,b", 'c"d', "e\nf", "é"],
        "score": [0.5, None, float("nan"), 1e-7, -0.25],
        "seen": pa.array([datetime(2026, 11, 28, 3, tzinfo=UTC)] * 5, pa.timestamp("us", "UTC")),
        "note": ["=1+1", "-2", " +49 30 1", "＠x", None],
    }
)


def delivery(transaction: int, rows: pa.Table = ROWS, *, run: str = "run", **fields: Any) -> Delivery:  # noqa: ANN401
    return delivery_of(rows, DAY, transaction, export="calls", run_id=run, **fields)


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return open_folder(str(tmp_path / "lists"))
    store: Store = request.getfixturevalue("store")
    return open_folder(f"s3://{store.new_bucket()}/lists")


@pytest.fixture
def sink(folder: Folder) -> FileSink:
    return FileSink(f"{folder.uri}/calls_{{day}}.csv")


def manifest(folder: Folder) -> Manifest:
    return Manifest.model_validate_json(folder.read(f"calls_{DAY}.manifest.json"))


def shown(folder: Folder) -> list[str]:
    """The keys that a reader sees who follows the manifest, by a reader of CSV that we did not write."""
    content = folder.read(manifest(folder).file).decode()
    return [row["id"] for row in csv.DictReader(content.splitlines(keepends=True))]


def test_the_manifest_names_the_rows_their_number_and_their_digest(folder: Folder, sink: FileSink) -> None:
    assert sink.marker(DAY) is None
    done = sink.deliver(delivery(3))
    found = manifest(folder)
    content = folder.read(found.file)
    assert done.outcome == "exported"
    assert found.file.startswith(f"calls_{DAY}.3-") and found.file.endswith(".csv")
    assert (found.rows, found.bytes, found.sha256) == (5, len(content), hashlib.sha256(content).hexdigest())
    assert shown(folder) == ROWS["id"].to_pylist()
    assert sink.marker(DAY) == done.marker == found.marker
    assert done.where == (f"{folder.uri}/{found.file}", f"{folder.uri}/calls_{DAY}.manifest.json")


def test_a_repeated_export_reads_and_writes_nothing(folder: Folder, sink: FileSink) -> None:
    sink.deliver(delivery(3))
    before = {file.path: file.token for file in folder.list()}

    def refuse() -> Iterator[pa.RecordBatch]:
        raise AssertionError("it reads no row")

    assert sink.deliver(delivery(3, run="later", read=refuse)).outcome == "unchanged"
    assert {file.path: file.token for file in folder.list()} == before


def test_a_corrected_day_replaces_the_list_and_an_older_run_does_not(folder: Folder, sink: FileSink) -> None:
    sink.deliver(delivery(3))
    sink.deliver(delivery(4, ROWS.slice(0, 2)))
    assert shown(folder) == ["1", "a,b"]
    late = sink.deliver(delivery(3))
    assert (late.outcome, late.marker.version) == ("superseded", Version(1, 4))
    assert shown(folder) == ["1", "a,b"]


def test_a_table_made_anew_wins_over_the_old_count(folder: Folder, sink: FileSink) -> None:
    sink.deliver(delivery(9, created=1))
    assert sink.deliver(delivery(1, ROWS.slice(0, 1), created=2)).outcome == "exported"
    assert shown(folder) == ["1"]


def test_the_file_before_stays_for_its_readers_and_no_older_one(folder: Folder, sink: FileSink) -> None:
    names = []
    for transaction in (1, 2, 3, 4):
        sink.deliver(delivery(transaction, ROWS.slice(0, transaction)))
        names.append(manifest(folder).file)
    assert [file.path for file in folder.list()] == sorted([*names[-2:], f"calls_{DAY}.manifest.json"])
    assert manifest(folder).previous == names[-2]


def meanwhile(
    sink: FileSink, rows: pa.Table, others: Callable[[], Delivered]
) -> Callable[[], Iterator[pa.RecordBatch]]:
    """Rows, between which another export of the same day runs from beginning to end."""

    def read() -> Iterator[pa.RecordBatch]:
        first, *rest = rows.to_batches(max_chunksize=2)
        yield first
        others()
        yield from rest

    return read


def test_an_export_that_is_overtaken_shows_nothing_and_leaves_nothing(folder: Folder, sink: FileSink) -> None:
    newer = delivery(4, ROWS.slice(0, 1))
    late = sink.deliver(delivery(3, read=meanwhile(sink, ROWS, lambda: sink.deliver(newer))))
    assert late.outcome == "superseded"
    assert shown(folder) == ["1"]
    assert len(folder.list()) == 2


def test_a_day_that_returns_to_an_older_content_is_not_written_over_by_the_version_between(
    folder: Folder, sink: FileSink
) -> None:
    """A -> B -> A: on S3 the content that the late exporter of B compares is the same again."""
    sink.deliver(delivery(1))
    again = delivery(3)
    late = sink.deliver(delivery(2, ROWS.slice(0, 1), read=meanwhile(sink, ROWS, lambda: sink.deliver(again))))
    assert late.outcome == "superseded"
    assert (manifest(folder).transaction, shown(folder)) == (3, ROWS["id"].to_pylist())


def between_comparison_and_switch(monkeypatch: pytest.MonkeyPatch, others: Callable[[], object]) -> None:
    """Let others run once the file of an export is written and its manifest compared, but not yet replaced."""
    read, calls = files._read, itertools.count(1)

    def reading(*arguments: Any) -> Any:  # noqa: ANN401  (as the function that it stands for)
        found = read(*arguments)
        if next(calls) == 2:
            others()
        return found

    monkeypatch.setattr(files, "_read", reading)


def test_a_manifest_that_was_replaced_since_it_was_compared_is_compared_again(
    folder: Folder, sink: FileSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.deliver(delivery(1))
    newer = delivery(3, ROWS.slice(0, 1))
    between_comparison_and_switch(monkeypatch, lambda: sink.deliver(newer))
    assert sink.deliver(delivery(2)).outcome == "superseded"
    assert (manifest(folder).transaction, shown(folder)) == (3, ["1"])


def test_a_table_made_anew_has_file_names_of_its_own(
    folder: Folder, sink: FileSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the clean-up after the old table's last version would take the new table's first file."""
    sink.deliver(delivery(1))
    sink.deliver(delivery(2, ROWS.slice(0, 1)))
    last = delivery(3, ROWS.slice(0, 2))
    between_comparison_and_switch(monkeypatch, lambda: sink.deliver(last))
    assert sink.deliver(delivery(1, created=2)).outcome == "exported"
    assert shown(folder) == ROWS["id"].to_pylist()


def test_two_exports_of_one_version_at_once_leave_one_file(folder: Folder, sink: FileSink) -> None:
    other = delivery(3, run="other")
    done = sink.deliver(delivery(3, read=meanwhile(sink, ROWS, lambda: sink.deliver(other))))
    assert (done.outcome, done.marker.run_id) == ("unchanged", "other")
    assert shown(folder) == ROWS["id"].to_pylist()
    assert len(folder.list()) == 2


def test_a_reader_in_a_loop_sees_whole_versions_only(folder: Folder, sink: FileSink) -> None:
    sink.deliver(delivery(1, ROWS.slice(0, 1)))
    seen, stop = set(), threading.Event()

    def look() -> None:
        while not stop.is_set():
            found = manifest(folder)
            try:
                content = folder.read(found.file)
            except FileNotFoundError:  # two versions came since: the reader looks at the manifest again
                continue
            seen.add((found.transaction, found.sha256 == hashlib.sha256(content).hexdigest()))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for transaction in range(2, 12):
            sink.deliver(delivery(transaction, ROWS.slice(0, 1 + transaction % 4)))
    finally:
        stop.set()
        reader.join()
    assert all(whole for _, whole in seen) and len(seen) > 1


@pytest.mark.parametrize("form", [".csv", ".csv.gz", ".parquet", ".jsonl"])
def test_another_library_reads_what_was_exported(folder: Folder, form: str) -> None:
    sink = FileSink(f"{folder.uri}/calls_{{day}}{form}")
    sink.deliver(delivery(1))
    content = folder.read(manifest(folder).file)
    if form == ".parquet":
        found = pd.read_parquet(pa.BufferReader(content)).to_dict("records")
        keys = [row["id"] for row in found]
    elif form == ".jsonl":
        found = [json.loads(line) for line in content.decode().splitlines()]
        keys = [row["id"] for row in found]
        assert [row["score"] for row in found] == [0.5, None, None, 1e-7, -0.25]
        assert found[0]["seen"] == "2026-11-28T03:00:00+00:00"
    else:
        text = (gzip.decompress(content) if form == ".csv.gz" else content).decode()
        keys = [row["id"] for row in csv.DictReader(text.splitlines(keepends=True))]
    assert keys == ROWS["id"].to_pylist()
    assert manifest(folder).rows == 5


def test_a_spreadsheet_computes_nothing_and_reads_accents(folder: Folder) -> None:
    sink = FileSink(f"{folder.uri}/calls_{{day}}.csv", for_people=True)
    sink.deliver(delivery(1))
    content = folder.read(manifest(folder).file)
    assert content.startswith(b"\xef\xbb\xbf")
    found = [*csv.DictReader(content.decode("utf-8-sig").splitlines(keepends=True))]
    assert [row["note"] for row in found] == ["'=1+1", "'-2", "' +49 30 1", "'＠x", ""]
    assert [row["score"] for row in found][-1] == "-0.25"  # a number is a number


def test_a_column_that_csv_cannot_hold_and_a_folder_that_cannot_be_written_are_problems(tmp_path: Path) -> None:
    nested = pa.schema([("id", pa.string()), ("why", pa.struct([("a", pa.string())])), ("top", pa.list_(pa.int64()))])
    sink = FileSink(f"{tmp_path}/calls_{{day}}.csv")
    assert [*sink.problems(nested)] == [
        "column why is struct<a: string>, which CSV cannot hold; export to .parquet or .jsonl"
    ]
    assert [*sink.problems(ROWS.schema)] == []
    assert [*FileSink(f"{tmp_path}/a/{{day}}/calls.csv").problems(ROWS.schema)] == []
    (tmp_path / "file").touch()
    [problem] = FileSink(f"{tmp_path}/file/calls_{{day}}.csv").problems(ROWS.schema)
    assert problem.startswith(f"{tmp_path}/file cannot be written to: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_foreign_manifest_is_refused_and_left_as_it_is(folder: Folder, sink: FileSink) -> None:
    folder.put(f"calls_{DAY}.manifest.json", b"{}")
    with pytest.raises(
        SinkRefusedError, match=r"calls_2026-11-28\.manifest\.json is not a manifest of an export .*remove it"
    ):
        sink.deliver(delivery(1))
    assert folder.read(f"calls_{DAY}.manifest.json") == b"{}"


def test_another_exports_manifest_is_refused_and_stands(folder: Folder, sink: FileSink) -> None:
    """Two exports to one name, in one spec or in two pipelines: the later one must not take it over."""
    sink.deliver(delivery(1))
    other = replace(delivery(1, ROWS.slice(0, 1), created=9), export="mails")
    with pytest.raises(SinkRefusedError, match=r"manifest\.json belongs to the export calls of churn; "):
        sink.deliver(other)
    assert (manifest(folder).export, shown(folder)) == ("calls", ROWS["id"].to_pylist())


def test_another_table_is_exported_in_its_place_and_back(folder: Folder, sink: FileSink) -> None:
    for of, transaction, created in (("predictions", 3, 1), ("decisions", 1, 2), ("predictions", 3, 1)):
        before = sink.marker(DAY)
        new = delivery(transaction, created=created, of=of, instead_of=before)
        assert sink.deliver(new).outcome == "exported"
        assert manifest(folder).of == of
    late = delivery(1, created=2, of="decisions", instead_of=before)
    assert sink.deliver(late).outcome == "superseded", "the predictions came meanwhile"


def test_a_file_that_is_gone_is_written_again_unless_a_list_is_to_stay(folder: Folder, sink: FileSink) -> None:
    sink.deliver(delivery(1))
    folder.remove(manifest(folder).file)
    assert sink.deliver(replace(delivery(1, run="later"), replaces="nothing")).outcome == "unchanged"
    sink.deliver(delivery(1, run="later"))
    assert shown(folder) == ROWS["id"].to_pylist()


def test_another_form_is_written_beside_the_one_before(folder: Folder, sink: FileSink) -> None:
    sink.deliver(delivery(1))
    plain, packed = manifest(folder).file, FileSink(f"{sink.address}.gz")
    assert packed.deliver(replace(delivery(1), replaces="nothing")).outcome == "unchanged"
    assert packed.deliver(delivery(1)).outcome == "exported"
    assert gzip.decompress(folder.read(manifest(folder).file)) == folder.read(plain)
    assert packed.deliver(delivery(1)).outcome == "unchanged"


def test_an_error_of_the_source_is_not_one_of_the_sink(sink: FileSink) -> None:
    def read() -> Iterator[pa.RecordBatch]:
        yield ROWS.to_batches()[0]
        raise FileNotFoundError("tables/predictions/a.parquet")

    with pytest.raises(FileNotFoundError, match=r"tables/predictions/a\.parquet"):
        sink.deliver(delivery(1, read=read))


def test_rows_of_one_missing_cell_are_counted(folder: Folder, sink: FileSink) -> None:
    rows = pa.table({"id": pa.array([None, "a", None, None])})
    assert sink.deliver(delivery(1, rows)).marker.rows == 4
    assert folder.read(manifest(folder).file).count(b"\n") == 5


@pytest.mark.parametrize("form", [".csv", ".csv.gz", ".jsonl", ".parquet"])
def test_rows_longer_than_readers_of_csv_take_are_counted(tmp_path: Path, form: str) -> None:
    rows = pa.table({"id": ["1", "2", "3"], 'a "\n" b': ['"\n' * 2**20 + "x", None, '"']})
    assert FileSink(f"{tmp_path}/long_{{day}}{form}").deliver(delivery(1, rows)).marker.rows == 3


def test_what_a_killed_export_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    sink, day = FileSink(f"{tmp_path}/calls_{{day}}.csv"), time.time()
    names = {".0123456789abcdef0123456789abcdef.tmp": 2, f"calls_{DAY}.1-00000000.csv": 2}
    others = {
        ".fedcba9876543210fedcba9876543210.tmp": 0.5,
        f"calls_{DAY}.2-00000000.csv": 0.5,
        "calls_2026-11-27.1-00000000.csv": 9,
        f"calls_{DAY}.csv": 9,
        f"calls_{DAY}.1-00000000.csv.bak": 9,
    }
    for name, age in (names | others).items():
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (day - age * 86400,) * 2)
    sink.deliver(delivery(3))
    kept = {file.name for file in tmp_path.iterdir()}
    assert kept == {*others, f"calls_{DAY}.manifest.json", manifest(open_folder(str(tmp_path))).file}


@pytest.mark.s3
def test_a_store_that_denies_is_final_and_one_that_fails_is_not(store: Store) -> None:
    bucket = store.new_bucket()
    sink = FileSink(f"s3://{bucket}/calls_{{day}}.csv")
    sink.deliver(delivery(1))
    with pytest.raises(SinkError, match="what was exported before stands"):
        FileSink("s3://no-such-bucket-here/calls_{day}.csv").deliver(delivery(1))


def test_a_row_that_the_file_lacks_stops_the_export(
    sink: FileSink, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "count", lambda *_: 4)
    with pytest.raises(Exception, match="5 rows were read and 4 are in the file; nothing was exported"):
        sink.deliver(delivery(1))
    assert folder.list() == []
