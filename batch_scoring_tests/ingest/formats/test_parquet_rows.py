import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_scoring.config.spec import Csv
from batch_scoring.errors import UnreadableFileError
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.formats import parquet_rows, rows
from batch_scoring.ingest.formats.rows import BATCH_ROWS
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring_tests.landed import land, read

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.mark.parametrize("group", [1, 7, 50, 1000])
def test_parquet_rows_are_numbered_across_row_groups(folder: LocalFolder, group: int) -> None:
    file = land(folder, pa.table({"n": list(range(1, 101))}), "a.parquet", row_group_size=group)
    assert read(folder, file, batch_rows=16) == {n: {"n": n} for n in range(1, 101)}
    assert read(folder, file, 7, 8, 49, 50, 51, 99) == read(folder, file)


def test_a_row_group_larger_than_memory_should_hold_comes_in_bounded_batches(folder: LocalFolder) -> None:
    count = 3 * BATCH_ROWS + 5
    file = land(folder, pa.table({"n": np.arange(count)}), "a.parquet", row_group_size=count)
    with landing_files.open_rows(folder, file, Csv()) as opened:
        assert opened.count() == count
        sizes = [len(block) for block in opened.read(0, count)]
    assert max(sizes) <= BATCH_ROWS
    assert sum(sizes) == count


@given(
    rows=st.integers(0, 60),
    group=st.integers(1, 70),
    cuts=st.lists(st.integers(0, 70), max_size=5),
)
@QUICK
def test_parquet_ranges_equal_the_whole(folder: LocalFolder, rows: int, group: int, cuts: list[int]) -> None:
    file = land(folder, pa.table({"n": pa.array(range(rows), pa.int64())}), "a.parquet", row_group_size=group)
    assert read(folder, file, *cuts) == {n + 1: {"n": n} for n in range(rows)}


def test_a_parquet_file_without_rows_has_no_blocks(folder: LocalFolder) -> None:
    file = land(folder, pa.table({"n": pa.array([], pa.int64())}), "a.parquet")
    assert landing_files.inspect(folder, file, Csv()).rows == 0
    assert read(folder, file) == {}


# what a file may do to whoever reads it


def test_times_beyond_nanoseconds_are_what_they_say(folder: LocalFolder) -> None:
    times = pa.array([253402214400 * 10**6, -14831769600 * 10**6, 0], pa.timestamp("us"))  # 9999-12-31, 1500-01-01
    file = land(folder, pa.table({"at": times}), "a.parquet", use_deprecated_int96_timestamps=True)
    assert [str(row["at"]) for row in read(folder, file).values()] == [  # type: ignore[index]
        "9999-12-31 00:00:00",
        "1500-01-01 00:00:00",
        "1970-01-01 00:00:00",
    ]


def test_a_page_with_a_wrong_checksum_stops_the_day_at_its_file(folder: LocalFolder) -> None:
    sink = io.BytesIO()
    table = pa.table({"amount": pa.array([1000.0, 2000.0])})
    pq.write_table(table, sink, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(sink.getvalue())
    at = content.index(np.array([1000.0, 2000.0]).tobytes())
    content[at : at + 8] = np.float64(9000.0).tobytes()
    with pytest.raises(UnreadableFileError, match=r"b\.parquet .*CRC.*; its pages are damaged: upload it again"):
        read(folder, land(folder, bytes(content), "b.parquet"))


def test_columns_that_nobody_asked_for_are_not_decoded(folder: LocalFolder) -> None:
    sink = io.BytesIO()
    table = pa.table({"id": ["a", "b"], "huge": [["x"] * 1000] * 2, "a.b": [1, 2]})
    pq.write_table(table, sink, compression="none", use_dictionary=False)
    content = bytearray(sink.getvalue())
    at = content.index(b"\x01\0\0\0x" * 10)
    content[at : at + 400] = b"\xff" * 400  # nobody could decode it
    with landing_files.open_rows(folder, land(folder, bytes(content), "a.parquet"), Csv(), ["id", "a.b"]) as opened:
        assert opened.schema.names == ["id", "huge", "a.b"]
        assert [block.batch.to_pylist() for block in opened.read(0, 9)] == [
            [{"id": "a", "a.b": 1}, {"id": "b", "a.b": 2}]
        ]


@pytest.mark.parametrize("dictionary", [True, False])
def test_batches_are_bounded_by_what_their_text_takes(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch, dictionary: bool
) -> None:
    for module in (rows, parquet_rows):
        monkeypatch.setattr(module, "BATCH_BYTES", 100_000)
    texts = ["x" * 30_000 if n % 3 else None for n in range(200)]
    table = pa.table({"n": range(200), "text": texts, "word": ["ab"] * 200})
    file = land(folder, table, "a.parquet", use_dictionary=dictionary)
    with landing_files.open_rows(folder, file, Csv()) as opened:
        blocks = list(opened.read(0, 200))
    assert [number for block in blocks for number in block.numbers] == list(range(1, 201))
    assert [row for block in blocks for row in block.batch.to_pylist()] == table.to_pylist()
    assert max(sum(len(text or "") for text in block.batch.column("text").to_pylist()) for block in blocks) <= 100_000
