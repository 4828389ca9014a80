import csv
import gzip
import io
import random
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_scoring import landing
from batch_scoring.rows import UnreadableFileError
from batch_scoring.spec import Csv
from batch_scoring.storage import FileChangedError, FileVersion, LocalFolder

DAY = "2024-03-04"
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    return LocalFolder(str(tmp_path / "landing"))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that small files cross their boundaries as large ones do."""
    monkeypatch.setattr(landing, "_CSV_BLOCK", 64)
    monkeypatch.setattr(landing, "BATCH_ROWS", 3)


def land(folder: LocalFolder, content: bytes | pa.Table, name: str = "a.csv", **options: object) -> FileVersion:
    if isinstance(content, pa.Table):
        sink = io.BytesIO()
        pq.write_table(content, sink, **options)
        content = sink.getvalue()
    folder.put(f"dt={DAY}/{name}", content)
    return next(file for file in folder.list() if file.path == f"dt={DAY}/{name}")


def read(
    folder: LocalFolder, file: FileVersion, *cuts: int, dialect: Csv | None = None
) -> dict[int, dict[str, object] | str]:
    """Every row by its number: its cells, or the text of a broken one. `cuts`: where ranges end and begin."""
    found: dict[int, dict[str, object] | str] = {}
    with landing.open_rows(folder, file, dialect or Csv()) as rows:
        for start, stop in pairwise([0, *sorted(cuts), 10**9]):
            for block in rows.read(start, stop):
                assert 0 < len(block) <= 10**6
                numbers = block.numbers.tolist() + [row.number for row in block.broken]
                assert all(start < number <= stop for number in numbers)
                assert not set(numbers) & set(found)
                found |= dict(zip(block.numbers.tolist(), block.batch.to_pylist(), strict=True))
                found |= {row.number: row.text for row in block.broken}
    assert sorted(found) == list(range(1, len(found) + 1))
    return found


# files


def test_data_files_are_those_of_the_day_whose_names_do_not_begin_with_a_dot_or_an_underscore(
    folder: LocalFolder,
) -> None:
    for path in (
        "dt=2024-03-04/b.csv",
        "dt=2024-03-04/a.parquet",
        "dt=2024-03-04/sub/c.csv",
        "dt=2024-03-04/notes.txt",
    ):
        folder.put(path, b"x")
    for path in ("dt=2024-03-04/_SUCCESS", "dt=2024-03-04/.a.tmp", "dt=2024-03-04/_tmp/a.csv", "dt=2024-03-05/a.csv"):
        folder.put(path, b"x")
    assert [file.path.removeprefix("dt=2024-03-04/") for file in landing.list_day(folder, DAY)] == [
        "a.parquet", "b.csv", "notes.txt", "sub/c.csv",
    ]  # fmt: skip


def test_a_fingerprint_names_paths_versions_and_sizes_in_any_order(folder: LocalFolder) -> None:
    files = [land(folder, b"a\n1\n", "a.csv"), land(folder, b"a\n2\n", "b.csv")]
    fingerprint = landing.fingerprint(files)
    assert landing.fingerprint(reversed(files)) == fingerprint
    assert landing.fingerprint(files[:1]) != fingerprint
    pinned = [landing.inspect(folder, file, Csv()) for file in files]
    assert landing.fingerprint(pinned) == fingerprint
    assert landing.fingerprint([files[0], land(folder, b"a\n3\n", "b.csv")]) != fingerprint


def test_inspecting_a_file_counts_its_rows_and_names_its_columns(folder: LocalFolder) -> None:
    table = pa.table({"id": ["a", "b", "c"], "x": [1.0, 2.0, 3.0]})
    parquet = landing.inspect(folder, land(folder, table, "a.parquet"), Csv())
    assert (parquet.rows, parquet.columns) == (3, {"id": "string", "x": "double"})
    text = landing.inspect(folder, land(folder, b"id,x\na,1\nbroken\nb,2\n"), Csv())
    assert (text.rows, list(text.columns)) == (3, ["id", "x"])


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_file_that_is_replaced_is_not_read_as_the_pinned_one(folder: LocalFolder, name: str) -> None:
    def contents(value: str) -> bytes | pa.Table:
        return pa.table({"a": [value]}) if name.endswith("parquet") else f"a\n{value}\n".encode()

    file = land(folder, contents("one"), name)
    land(folder, contents("two"), name)
    with pytest.raises(FileChangedError, match=f"{name} has changed"):
        read(folder, file)


def test_a_file_that_is_replaced_while_it_is_read_is_noticed_at_the_end(folder: LocalFolder) -> None:
    file = land(folder, b"a\n1\n")
    with pytest.raises(FileChangedError), landing.open_rows(folder, file, Csv()) as rows:
        assert [block.batch.to_pylist() for block in rows.read(0, 10)] == [[{"a": b"1"}]]
        land(folder, b"a\n2\n")


UNREADABLE = {
    "nothing": ("a.csv", b"", r"a.csv \(0 bytes\) cannot be scored: it is empty"),
    "no header": ("a.csv", b"\n\n", r"no whole CSV file: .*; it has no header line: upload it again"),
    "another kind": ("a.txt", b"id\n1\n", "its name ends in none of .parquet, .csv, .csv.gz; if it is not data, let"),
    "column twice": ("a.csv", b"id,x,x\n1,2,3\n", "it has more than one column x; expected distinct names"),
    "header in latin-1": ("a.csv", b"id,gr\xf6\xdfe\n1,2\n", "0xf6 in position 2: .*; its header must be UTF-8"),
    "UTF-16": ("a.csv", "id,x\n1,2\n".encode("utf-16"), "its header must be UTF-8"),
    "ragged row in latin-1": ("a.csv", b"id,x\n1,2\nk\xf6\n", "Row #3.*; a row with another number of cells .* UTF-8"),
    "open quote": ("a.csv", b'id,x\n1,2\n2,"3\n3,4\n', "a quote that opens in row 2 is never closed, so that this row"),
    "open quote in a first cell": ("a.csv", b'id,x\n1,2\n"2,3\n3,4\n', "a quote that opens in row 2 is never closed"),
    "open quote, gzipped": ("a.csv.gz", gzip.compress(b'id,x\n1,"2\n2,3\n'), "quote that opens in row 1 is never"),
    "not gzipped": ("a.csv.gz", b"id,x\n1,2\n", "it is not compressed, but its name ends in .gz: upload it again"),
    "truncated gzip": ("a.csv.gz", gzip.compress(b"id,x\n1,2\n" * 99)[:-9], "Truncated compressed stream; it may be"),
    "no Parquet": ("a.parquet", b"id,x\n1,2\n", r"a.parquet \(9 bytes\) is no whole Parquet file: .*; it may be trun"),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pyarrow decodes broken rows itself
@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_is_no_whole_table_is_refused_by_name_with_what_to_do(folder: LocalFolder, case: str) -> None:
    name, content, message = UNREADABLE[case]
    with pytest.raises(UnreadableFileError, match=message) as caught:
        landing.inspect(folder, land(folder, content, name), Csv())
    assert str(caught.value).startswith(f"{folder.uri}/dt={DAY}/{name} (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["head", "middle", "tail"])
def test_a_damaged_parquet_file_is_refused_when_it_is_read(folder: LocalFolder, place: str) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": [str(n) for n in range(3000)]}), sink)
    content = bytearray(sink.getvalue())
    start = {"head": 4, "middle": len(content) // 2, "tail": len(content) - 60}[place]
    content[start : start + 50] = b"\xff" * 50
    with pytest.raises(UnreadableFileError, match=r"is no whole Parquet file: .*: upload it again"):
        read(folder, land(folder, bytes(content), "a.parquet"))


def test_a_row_longer_than_a_block_is_refused_with_the_limit(folder: LocalFolder) -> None:
    long = b'id,x\n1,"' + b"y\n" * 12_000_000
    with pytest.raises(UnreadableFileError, match="a row is longer than 8 MiB: there may be a quote that nothing clo"):
        landing.inspect(folder, land(folder, long), Csv())


# Parquet


@pytest.mark.parametrize("group", [1, 7, 50, 1000])
def test_parquet_rows_are_numbered_across_row_groups(
    folder: LocalFolder, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "BATCH_ROWS", 16)
    file = land(folder, pa.table({"n": list(range(1, 101))}), "a.parquet", row_group_size=group)
    assert read(folder, file) == {n: {"n": n} for n in range(1, 101)}
    assert read(folder, file, 7, 8, 49, 50, 51, 99) == read(folder, file)


def test_a_row_group_larger_than_memory_should_hold_comes_in_bounded_batches(folder: LocalFolder) -> None:
    count = 3 * landing.BATCH_ROWS + 5
    file = land(folder, pa.table({"n": np.arange(count)}), "a.parquet", row_group_size=count)
    with landing.open_rows(folder, file, Csv()) as rows:
        assert rows.count() == count
        sizes = [len(block) for block in rows.read(0, count)]
    assert max(sizes) <= landing.BATCH_ROWS
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
    assert landing.inspect(folder, file, Csv()).rows == 0
    assert read(folder, file) == {}


# CSV

CELL = st.one_of(
    st.sampled_from(["", "a", "1.5", "ü", "x,y", 'say "hi"', "two\nlines", "a\r\nb", " padded ", "naïve 😀"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12),
)
LINE = st.lists(CELL, min_size=1, max_size=5)


def written(lines: list[list[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(lines)
    return out.getvalue().encode()


@given(lines=st.lists(LINE, max_size=25), cuts=st.lists(st.integers(0, 26), max_size=4), zipped=st.booleans())
@QUICK
def test_csv_rows_are_numbered_and_cut_as_they_stand_in_the_file_whatever_is_in_them(
    folder: LocalFolder, small_blocks: None, lines: list[list[str]], cuts: list[int], zipped: bool
) -> None:
    landing._CSV_BLOCK = 512  # a row must fit
    content = written([["a", "b", "c"], *lines])
    file = land(folder, gzip.compress(content) if zipped else content, "a.csv.gz" if zipped else "a.csv")
    whole = read(folder, file)
    assert len(whole) == len(lines) == landing.inspect(folder, file, Csv()).rows
    for number, cells in enumerate(lines, start=1):
        found = whole[number]
        if len(cells) == 3:
            assert found == {name: cell.encode() for name, cell in zip("abc", cells, strict=True)}
        else:
            assert isinstance(found, str)  # broken: its text as it stood in the file
            # Arrow's own text of such a row may lose the \n of a \r\n inside a cell
            text, stood = (one.translate({10: None, 13: None}) for one in (found, written([cells]).decode()))
            assert text == stood or text.strip() == ""
    assert read(folder, file, *cuts) == whole


def plain_rows(count: int, broken: set[int]) -> bytes:
    lines = [f"{n},x{n}" if n not in broken else f"{n},too,many" for n in range(1, count + 1)]
    return "\n".join(["id,x", *lines, ""]).encode()


@given(broken=st.sets(st.integers(1, 40)), cuts=st.lists(st.integers(0, 41), max_size=4))
@QUICK
def test_broken_rows_count_wherever_they_stand(
    folder: LocalFolder, small_blocks: None, broken: set[int], cuts: list[int]
) -> None:
    file = land(folder, plain_rows(40, broken))
    found = read(folder, file, *cuts)
    assert {number for number, row in found.items() if isinstance(row, str)} == broken
    assert all(
        row == (f"{n},too,many" if n in broken else {"id": b"%d" % n, "x": b"x%d" % n}) for n, row in found.items()
    )
    assert len(found) == 40


@pytest.mark.parametrize(
    "broken",
    [set(range(1, 61)), set(range(20, 61)), set(range(1, 41)), set(range(20, 40)), {1}, {60}, {6, 7, 12, 13}],
    ids=["all", "to the end", "from the start", "a block and more", "first", "last", "around boundaries"],
)
def test_blocks_that_hold_nothing_but_broken_rows_lose_none(
    folder: LocalFolder, small_blocks: None, broken: set[int]
) -> None:
    file = land(folder, plain_rows(60, broken))
    assert landing.inspect(folder, file, Csv()).rows == 60
    for cuts in ((), (20, 40), (6, 7, 8), (59,), (1,)):
        found = read(folder, file, *cuts)
        assert {number for number, row in found.items() if isinstance(row, str)} == broken
        assert len(found) == 60


def test_a_broken_row_says_how_many_cells_it_has(folder: LocalFolder) -> None:
    with landing.open_rows(folder, land(folder, b"id,x\n1,2\n3\n4,5,6\n"), Csv()) as rows:
        broken = [row for block in rows.read(0, 10) for row in block.broken]
    assert [(row.number, row.detail, row.text) for row in broken] == [
        (2, "1 cells, the header has 2", "3"),
        (3, "3 cells, the header has 2", "4,5,6"),
    ]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"\xef\xbb\xbfid,x\n1,2\n", [{"id": b"1", "x": b"2"}]),
        (b"id,x\r\n1,2\r\n3,4\r\n", [{"id": b"1", "x": b"2"}, {"id": b"3", "x": b"4"}]),
        (b"id,x\n1,2", [{"id": b"1", "x": b"2"}]),
        (b"id,x\n\n1,2\n\n\n3,4\n\n", [{"id": b"1", "x": b"2"}, {"id": b"3", "x": b"4"}]),
        (b'id,x\n,""\n', [{"id": None, "x": b""}]),
        (b'"id","x"\n"a ""b"" c","d\ne"\n', [{"id": b'a "b" c', "x": b"d\ne"}]),
        (b'id,x\n1,"two\nlines"\n', [{"id": b"1", "x": b"two\nlines"}]),
        (b'id,x\n1,"two\nlines"\n\n' + b"\n" * 200, [{"id": b"1", "x": b"two\nlines"}]),
        (b'id,x\n1,"two\nlines"', [{"id": b"1", "x": b"two\nlines"}]),
        (b"id,x\n1,gr\xfcn\n", [{"id": b"1", "x": b"gr\xfcn"}]),
        (b'id,x\n1,5" pipe\n', [{"id": b"1", "x": b'5" pipe'}]),
        (b"id,x\n", []),
    ],
    ids=["BOM", "CRLF", "no newline at the end", "blank lines", "null and empty", "quotes", "newline in a last cell",
         "and blank lines after it", "and no newline after it", "latin-1", "an inch", "header only"],
)  # fmt: skip
def test_cells_are_the_bytes_that_stand_in_the_file(
    folder: LocalFolder, content: bytes, rows: list[dict[str, bytes | None]]
) -> None:
    file = land(folder, content)
    assert list(read(folder, file).values()) == rows
    zipped = land(folder, gzip.compress(content), "b.csv.gz")
    assert list(read(folder, zipped).values()) == rows


def test_the_dialect_is_the_specs(folder: LocalFolder) -> None:
    file = land(folder, b"id;x\n1;NA\n2;3,5\n")
    dialect = Csv(delimiter=";", null_values=("", "NA"))
    assert list(read(folder, file, dialect=dialect).values()) == [
        {"id": b"1", "x": None}, {"id": b"2", "x": b"3,5"},
    ]  # fmt: skip


def test_a_gzip_file_of_several_members_is_read_to_its_end(folder: LocalFolder) -> None:
    content = gzip.compress(b"id\n1\n") + gzip.compress(b"2\n")
    assert list(read(folder, land(folder, content, "a.csv.gz")).values()) == [{"id": b"1"}, {"id": b"2"}]


def test_a_gzip_file_larger_than_a_block_is_read_to_its_end(folder: LocalFolder) -> None:
    content = b"id\n" + b"%d\n" * 2_000_000 % tuple(range(2_000_000))
    file = land(folder, gzip.compress(content, 1), "a.csv.gz")
    assert len(content) > landing._CSV_BLOCK
    assert landing.inspect(folder, file, Csv()).rows == 2_000_000


def test_rows_before_a_range_are_passed_over(folder: LocalFolder, small_blocks: None) -> None:
    def numbers(blocks: Iterator[landing.Rows]) -> list[int]:
        return [number for block in blocks for number in block.numbers.tolist()]

    with landing.open_rows(folder, land(folder, plain_rows(40, set())), Csv()) as rows:
        assert numbers(rows.read(10, 12)) == [11, 12]
        assert numbers(rows.read(30, 33)) == [31, 32, 33]
        assert numbers(rows.read(33, 100)) == list(range(34, 41))


class SlowFolder(LocalFolder):
    """Every read takes a while, as from a store; now and then the longer."""

    def open(self, path: str, token: str | None = None) -> BinaryIO:
        file, dice = super().open(path, token), random.Random(0)

        class Slow(io.RawIOBase):
            def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
                return file.seek(offset, whence)

            def read(self, size: int = -1) -> bytes:
                time.sleep(dice.random() * 0.01)
                return file.read(size)

        return cast("BinaryIO", Slow())


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_no_block_is_lost_while_the_look_at_the_header_still_reads_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(landing, "_CSV_BLOCK", 4096)
    text = "id,x\n" + "".join(f"{row:06d},{row}\n" for row in range(2000))
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    folder = SlowFolder(str(tmp_path))
    [file] = folder.list()
    for _ in range(15):
        with landing.open_rows(folder, file, Csv()) as rows:
            assert rows.count() == 2000
