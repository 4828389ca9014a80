import csv
import gzip
import io
import re
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_scoring.config.spec import Csv
from batch_scoring.errors import UnreadableFileError
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.formats import csv_rows
from batch_scoring.ingest.formats.rows import Rows
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring_tests.landed import broken, land, read

QUICK = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SPANNING = Csv(newlines=True)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that small files cross their boundaries as large ones do."""
    monkeypatch.setattr(csv_rows, "BLOCK", 64)


# what libraries write is what is read

CELL = st.one_of(
    st.sampled_from(["", "a", "1.5", "ü", "x,y", 'say "hi"', "two\nlines", "a\r\nb", " padded ", "C:\\dir\\", "\\N"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12),
)
LINE = st.lists(CELL, min_size=1, max_size=5)


def written(lines: list[list[str]], **dialect: Any) -> bytes:  # noqa: ANN401  (csv's settings)
    out = io.StringIO()
    csv.writer(out, **{"quoting": csv.QUOTE_ALL, "lineterminator": "\n"} | dialect).writerows(lines)
    return out.getvalue().encode()


@given(lines=st.lists(LINE, max_size=25), cuts=st.lists(st.integers(0, 26), max_size=4), zipped=st.booleans())
@QUICK
def test_csv_rows_are_numbered_and_cut_as_they_stand_in_the_file_whatever_is_in_them(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch, lines: list[list[str]], cuts: list[int], zipped: bool
) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK", 512)  # a row must fit
    content = written([["a", "b", "c"], *lines])
    file = land(folder, gzip.compress(content) if zipped else content, "a.csv.gz" if zipped else "a.csv")
    whole = read(folder, file, dialect=SPANNING, batch_rows=3)
    assert len(whole) == len(lines) == landing_files.inspect(folder, file, SPANNING).rows
    for number, cells in enumerate(lines, start=1):
        if len(cells) == 3 and not any("," in cell and "\n" in cell for cell in cells):
            assert whole[number] == {name: cell.encode() for name, cell in zip("abc", cells, strict=True)}
        else:
            assert whole[number] == written([cells]).decode().rstrip("\r\n")
    assert read(folder, file, *cuts, dialect=SPANNING, batch_rows=2) == whole


@given(
    lines=st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=20),
    delimiter=st.sampled_from(",;|\t"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    escaped=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    bom=st.booleans(),
)
@settings(QUICK, max_examples=200)
def test_what_pythons_csv_writes_in_any_dialect_is_read_as_it_was(
    folder: LocalFolder, lines: list[list[str]], delimiter: str, quoting: int, escaped: bool, end: str, bom: bool
) -> None:
    lines = [[re.sub("[\r\n]", " ", cell) for cell in cells] for cells in lines]
    dialect = {"doublequote": False, "escapechar": "\\"} if escaped else {}
    content = written([["a", "b"], *lines], delimiter=delimiter, quoting=quoting, lineterminator=end, **dialect)
    file = land(folder, b"\xef\xbb\xbf" * bom + content)
    csv_of = Csv(delimiter=delimiter, escape="\\" * escaped, null_values=("nothing",))
    expected = [dict(zip("ab", (cell.encode() for cell in cells), strict=True)) for cells in lines]
    assert list(read(folder, file, dialect=csv_of).values()) == expected


def test_what_pandas_writes_is_read_as_it_was(folder: LocalFolder) -> None:
    frame = pd.DataFrame({"id": ["a", 'say "hi"', "x,y", "C:\\dir\\", 'end\\"'], "x": [1.5, 2, 3, 4, 5]})
    plain = land(folder, frame.to_csv(index=False).encode())
    escaped = land(folder, frame.to_csv(index=False, escapechar="\\", doublequote=False).encode(), "b.csv")
    expected = [value.encode() for value in frame["id"]]
    assert [row["id"] for row in read(folder, plain).values()] == expected  # type: ignore[index]
    assert [row["id"] for row in read(folder, escaped, dialect=Csv(escape="\\")).values()] == expected  # type: ignore[index]


DATABASES = {
    # psql: \copy (select …) to stdout with (format csv, header)
    "PostgreSQL": (b'id,x\n1,"say ""hi"""\n2,\n3,""\n4,C:\\dir\\\n', Csv(), [b'say "hi"', None, b"", b"C:\\dir\\"]),
    # with (format csv, header, escape '\')
    "PostgreSQL, escape": (b'id,x\n1,"say \\"hi\\""\n2,"a\\\\b,"\n', Csv(escape="\\"), [b'say "hi"', b"a\\b,"]),
    # df.write.csv of Spark 3: a backslash before quotes, and before itself only where the cell is quoted
    "Spark": (b'id,x\n1,"say \\"hi\\", he"\n2,C:\\new\n3,""\n', Csv(escape="\\"), [b'say "hi", he', b"C:\\new", b""]),
    # select … into outfile … fields terminated by '\t': nothing is quoted, \N is no value
    "MySQL": (
        b'id\tx\n1\t5" pipe\n2\t\\N\n3\ta\\\tb\n4\t"open\n',
        Csv(delimiter="\t", quote="none", escape="\\", null_values=("\\N",)),
        [b'5" pipe', None, b"a\tb", b'"open'],
    ),
    "MySQL, line breaks": (
        b"id\tx\n1\ttwo\\\nlines\n2\tx\n",
        Csv(delimiter="\t", quote="none", escape="\\", newlines=True),
        [b"two\nlines", b"x"],
    ),
    # bcp, sqlplus and others: pipes, and no quoting at all
    "pipes": (b'id|x\n1|"5 pipe\n2|half 5"\n3|""\n', Csv(delimiter="|", quote="none"), [b'"5 pipe', b'half 5"', b'""']),
}


@pytest.mark.parametrize("case", DATABASES)
def test_what_databases_write_is_read_as_it_was(folder: LocalFolder, case: str) -> None:
    content, dialect, cells = DATABASES[case]
    rows = read(folder, land(folder, content), dialect=dialect)
    assert [row["x"] for row in rows.values()] == cells  # type: ignore[index]


# broken rows


@pytest.mark.parametrize("bad", [b"k\xf6", b"\xff,1,2", b"\xff\xfe\x00", b'\xf6,"open'])
def test_a_ragged_row_is_one_rejected_row_whatever_its_bytes(folder: LocalFolder, bad: bytes) -> None:
    file = land(folder, b"id,x\n1,2\n" + bad + b"\ngr\xfcn,3\n4,5,6\n")
    rows = read(folder, file)
    assert rows[1] == {"id": b"1", "x": b"2"} and rows[3] == {"id": b"gr\xfcn", "x": b"3"}
    assert rows[2] == bad.decode("utf-8", "backslashreplace") and rows[4] == "4,5,6"


def test_a_broken_row_says_its_line_and_how_many_cells_it_has(folder: LocalFolder) -> None:
    file = land(folder, b"\n\nid,x\n1,2\n\n3\n\r\n4,5,6\n")
    assert [(row.number, row.detail, row.text) for row in broken(folder, file)] == [
        (2, "line 6: 1 cell, but the header has 2", "3"),
        (3, "line 8: 3 cells, but the header has 2", "4,5,6"),
    ]


def test_rows_that_the_parser_counts_otherwise_stop_the_day(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = pa.csv.read_csv

    def forgetful(*args: object, **options: object) -> pa.Table:
        table = original(*args, **options)
        return table.slice(0, max(len(table) - 1, 0))

    file = land(folder, b"id,x\n1,2\n2,3\n3,4\n")
    monkeypatch.setattr(pa.csv, "read_csv", forgetful)
    with pytest.raises(UnreadableFileError, match=r"a\.csv .*lines 2 to 4 contain 3 rows, but 2 were parsed"):
        landing_files.inspect(folder, file, Csv())


def test_only_the_columns_that_are_asked_for_are_decoded(folder: LocalFolder) -> None:
    file = land(folder, b"a,b,c\n1,2,3\n")
    with landing_files.open_rows(folder, file, Csv(), ["c", "a", "strange"]) as rows:
        assert rows.schema.names == ["a", "b", "c"]
        assert [block.batch.to_pylist() for block in rows.read(0, 9)] == [[{"a": b"1", "c": b"3"}]]


# numbers


def plain_rows(count: int, ragged: set[int]) -> bytes:
    lines = [f"{n},x{n}" if n not in ragged else f"{n},too,many" for n in range(1, count + 1)]
    return "\n".join(["id,x", *lines, ""]).encode()


@given(ragged=st.sets(st.integers(1, 40)), cuts=st.lists(st.integers(0, 41), max_size=4))
@QUICK
def test_broken_rows_count_wherever_they_stand(
    folder: LocalFolder, small_blocks: None, ragged: set[int], cuts: list[int]
) -> None:
    file = land(folder, plain_rows(40, ragged))
    found = read(folder, file, *cuts, batch_rows=3)
    assert {number for number, row in found.items() if isinstance(row, str)} == ragged
    assert all(
        row == (f"{n},too,many" if n in ragged else {"id": b"%d" % n, "x": b"x%d" % n}) for n, row in found.items()
    )
    assert len(found) == 40


@pytest.mark.parametrize(
    "ragged",
    [set(range(1, 61)), set(range(20, 61)), set(range(1, 41)), set(range(20, 40)), {1}, {60}, {6, 7, 12, 13}],
    ids=["all", "to the end", "from the start", "a block and more", "first", "last", "around boundaries"],
)
def test_blocks_that_hold_nothing_but_broken_rows_lose_none(
    folder: LocalFolder, small_blocks: None, ragged: set[int]
) -> None:
    file = land(folder, plain_rows(60, ragged))
    assert landing_files.inspect(folder, file, Csv()).rows == 60
    for cuts in ((), (20, 40), (6, 7, 8), (59,), (1,)):
        found = read(folder, file, *cuts, batch_rows=3)
        assert {number for number, row in found.items() if isinstance(row, str)} == ragged
        assert len(found) == 60


def test_rows_before_a_range_are_passed_over(folder: LocalFolder, small_blocks: None) -> None:
    def numbers(blocks: Iterator[Rows]) -> list[int]:
        return [number for block in blocks for number in block.numbers.tolist()]

    with landing_files.open_rows(folder, land(folder, plain_rows(40, set())), Csv()) as rows:
        assert numbers(rows.read(10, 12)) == [11, 12]
        assert numbers(rows.read(30, 33)) == [31, 32, 33]
        assert numbers(rows.read(33, 100)) == list(range(34, 41))


# bytes


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"\xef\xbb\xbfid,x\n1,2\n", [{"id": b"1", "x": b"2"}]),
        (b"id,x\r\n1,2\r\n3,4\r\n", [{"id": b"1", "x": b"2"}, {"id": b"3", "x": b"4"}]),
        (b"id,x\r1,2\r\r3,4\r", [{"id": b"1", "x": b"2"}, {"id": b"3", "x": b"4"}]),
        (b"id,x\n1,2", [{"id": b"1", "x": b"2"}]),
        (b"id,x\n\n1,2\n\n\n3,4\n\n", [{"id": b"1", "x": b"2"}, {"id": b"3", "x": b"4"}]),
        (b'id,x\n,""\n', [{"id": None, "x": b""}]),
        (b'"id","x"\n"a ""b"" c","d\ne"\n', [{"id": b'a "b" c', "x": b"d\ne"}]),
        (b'id,x\n1,"two\nlines"\n\n' + b"\n" * 200, [{"id": b"1", "x": b"two\nlines"}]),
        (b'id,x\n1,"two\nlines"', [{"id": b"1", "x": b"two\nlines"}]),
        (b"id,x\n1,gr\xfcn\n", [{"id": b"1", "x": b"gr\xfcn"}]),
        (b'id,x\n1,5" pipe\n', [{"id": b"1", "x": b'5" pipe'}]),
        (b"id,x\n1,a\0b\n", [{"id": b"1", "x": b"a\0b"}]),
        (b"id , x\n1, 2 \n", [{"id": b"1", "x": b" 2 "}]),
        (b"id,x\n", []),
        (b"\xef\xbb\xbf\r\n\nid,x" + b"\r\n" * 300, []),
    ],
    ids=[
        "BOM",
        "CRLF",
        "CR",
        "no newline at the end",
        "blank lines",
        "null and empty",
        "quotes",
        "newline in a cell",
        "and no newline after it",
        "latin-1",
        "an inch",
        "NUL",
        "blanks",
        "header only",
        "and blank lines around it",
    ],
)
def test_cells_are_the_bytes_that_stand_in_the_file(
    folder: LocalFolder, content: bytes, rows: list[dict[str, bytes | None]]
) -> None:
    file = land(folder, content)
    assert list(read(folder, file, dialect=SPANNING).values()) == rows
    zipped = land(folder, gzip.compress(content), "b.csv.gz")
    assert list(read(folder, zipped, dialect=SPANNING).values()) == rows


def test_the_dialect_is_the_specs(folder: LocalFolder) -> None:
    file = land(folder, b"id;x\n1;NA\n2;3,5\n")
    dialect = Csv(delimiter=";", null_values=("", "NA"))
    assert list(read(folder, file, dialect=dialect).values()) == [
        {"id": b"1", "x": None},
        {"id": b"2", "x": b"3,5"},
    ]
    spaced = land(folder, b" id; x\n1;2\n", "b.csv")
    assert list(read(folder, spaced, dialect=Csv(delimiter=";", trim=False))[1]) == [" id", " x"]
