"""Which bytes of a block are a row: Python's csv, strict and line by line, says so."""

import csv
import gzip
import re
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch_scoring.config.spec import Csv
from batch_scoring.errors import UnreadableFileError
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.formats import csv_rows
from batch_scoring.ingest.formats.csv_records import Dialect, count_lines, records
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring_tests.landed import broken, land, read

QUICK = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SPANNING = Csv(newlines=True)
RAW = st.text(st.sampled_from('ab1,"\n\r\\ ü'), max_size=60)


def lines_of(text: str) -> list[str]:
    """The lines that are not blank."""
    return [line for line in re.split("\r\n|\r|\n", text) if line]


def cells_of(line: str, **dialect: Any) -> list[str] | None:  # noqa: ANN401  (csv's settings)
    """What Python's csv makes of a line by itself; None if it is none of its own."""
    try:
        [cells] = csv.reader([line], strict=True, **dialect)
    except csv.Error:
        return None
    return cells


@given(text=RAW.filter(bool))
@QUICK
def test_the_records_of_a_block_are_its_lines_and_the_parser_sees_those_without_a_fault(text: str) -> None:
    block = text.encode()
    found = records(block, Dialect(Csv()), is_last=True)
    texts = [found.text(position).decode() for position in range(len(found))]
    assert (texts, found.line_count) == (lines_of(text), count_lines(block))
    sound, parsed = found.sound()
    assert sorted([*sound.tolist(), *found.faults]) == list(range(len(found)))
    assert lines_of(parsed.decode()) == [texts[position] for position in sound]


def test_a_record_that_its_block_does_not_end_is_left_to_the_next_one() -> None:
    found = records(b'1,x\n2,"two\n', Dialect(SPANNING), is_last=False)
    assert (len(found), found.line_count, found.open_at) == (1, 1, 4)


@given(text=RAW, block=st.integers(61, 200), cuts=st.lists(st.integers(0, 30), max_size=3), zipped=st.booleans())
@example(text='1,"unclosed\n2,x\n3,"y"\n', block=100, cuts=[], zipped=False)
@example(text='"a"b,1\n"""",\r\n"a\rb",1', block=61, cuts=[1], zipped=True)
@settings(QUICK, max_examples=400)
def test_every_line_is_one_row_and_its_cells_are_those_of_pythons_csv(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch, text: str, block: int, cuts: list[int], zipped: bool
) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK", block)
    content = f"a,b\n{text}".encode()
    file = land(folder, gzip.compress(content) if zipped else content, "a.csv.gz" if zipped else "a.csv")
    found = read(folder, file, *cuts, dialect=Csv(null_values=("nothing",), trim=False), batch_rows=3)
    expected = [cells if (cells := cells_of(line)) and len(cells) == 2 else line for line in lines_of(text)]
    assert [
        row if isinstance(row, str) else [cast("bytes", cell).decode() for cell in row.values()]
        for _, row in sorted(found.items())
    ] == expected
    assert landing_files.inspect(folder, file, Csv()).rows == len(lines_of(text))


@given(text=RAW)
@QUICK
def test_without_quotes_a_quote_is_text_like_any_other(folder: LocalFolder, text: str) -> None:
    file = land(folder, f"a,b\n{text}".encode())
    for number, row in read(folder, file, dialect=Csv(quote="none", null_values=("nothing",))).items():
        line = lines_of(text)[number - 1]
        assert row == (line if line.count(",") != 1 else dict(zip("ab", line.encode().split(b","), strict=True)))


@given(text=RAW)
@settings(QUICK, max_examples=300)
def test_an_escape_takes_its_meaning_from_what_has_one_and_is_text_before_all_else(
    folder: LocalFolder, text: str
) -> None:
    def expected(line: str) -> list[str] | str:
        literal = re.sub(r'(\\[,"\\])|\\', lambda found: found[1] or r"\\", line)
        cells = cells_of(literal, escapechar="\\")
        dangles = (len(line) - len(line.rstrip("\\"))) % 2
        return cells if cells and len(cells) == 2 and not dangles else line

    file = land(folder, f"a,b\n{text}".encode())
    found = read(folder, file, dialect=Csv(escape="\\", null_values=("nothing",), trim=False))
    assert [
        row if isinstance(row, str) else [cast("bytes", cell).decode() for cell in row.values()]
        for _, row in sorted(found.items())
    ] == [expected(line) for line in lines_of(text)]


@given(text=RAW, quote=st.sampled_from(["none", '"', "'"]), escape=st.sampled_from(["", "\\"]))
@settings(QUICK, max_examples=300)
def test_rows_over_several_lines_are_never_lost_or_doubled(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch, text: str, quote: str, escape: str
) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK", 80)
    if quote == "none" and not escape:
        escape = "\\"
    file = land(folder, f"a,b\n{text}".encode())
    try:
        read(folder, file, dialect=Csv(newlines=True, quote=quote, escape=escape))
    except UnreadableFileError as error:
        assert "is never closed" in str(error)  # and not: rows were counted that were not parsed


# what no parser can know is a rejected row


def test_a_stray_quote_costs_its_own_line_and_no_other(folder: LocalFolder) -> None:
    lines = [f"L{n},{n},ok" for n in range(1, 1001)]
    lines[499] = 'L500,500,"5 pipe'
    lines[799] = 'L800,800,half 5"'
    file = land(folder, "\n".join(["id,x,note", *lines, ""]).encode())
    rows = read(folder, file)
    assert len(rows) == 1000
    assert [number for number, row in rows.items() if isinstance(row, str)] == [500]
    [row] = broken(folder, file)
    assert (row.number, row.rule, row.text) == (500, "quotes_are_closed", 'L500,500,"5 pipe')
    assert row.detail.startswith("line 501: a quote is not closed on its line; ")
    assert "input.csv.quote: none" in row.detail and "input.csv.newlines: true" in row.detail


def test_the_escape_that_a_file_needs_is_named(folder: LocalFolder) -> None:
    file = land(folder, b'id,x\n"L\\"1",1\n"L2\\"",2\nL3,3\n"a \\"b\\", c",4\n')
    assert read(folder, file)[3] == {"id": b"L3", "x": b"3"}
    rows = broken(folder, file)
    assert [row.number for row in rows] == [1, 2, 4]
    assert all('set input.csv.escape: "\\\\"' in row.detail for row in rows)
    assert [row["id"] for row in read(folder, file, dialect=Csv(escape="\\")).values()] == [  # type: ignore[index]
        b'L"1',
        b'L2"',
        b"L3",
        b'a "b", c',
    ]


def test_a_cell_that_may_have_swallowed_rows_is_a_rejected_row(folder: LocalFolder) -> None:
    content = b'id,x\n\n1,"two\nlines"\n2,"open\n3,x\n4,"y"\n5,"a,\n6,b"\n7,"z"w\n8,8\n'
    file = land(folder, content)
    assert {n for n, row in read(folder, file, dialect=SPANNING).items() if not isinstance(row, str)} == {1, 5}
    assert [(row.number, row.rule, row.detail[:48]) for row in broken(folder, file, SPANNING)] == [
        (2, "quotes_are_closed", "line 5: a quoted cell has line breaks and delimi"),
        (3, "quotes_are_closed", "line 8: a quoted cell has line breaks and delimi"),
        (4, "quotes_end_cells", "line 10: there is text after a closing quote; do"[:48]),
    ]


def test_blanks_behind_a_closing_quote_are_no_text_where_they_are_trimmed(folder: LocalFolder) -> None:
    file = land(folder, b'id,x\n"1" ,"2"\t\n"3" x,4\n')
    assert read(folder, file) == {1: {"id": b"1 ", "x": b"2\t"}, 2: '"3" x,4'}
    assert read(folder, file, dialect=Csv(trim=False)) == {1: '"1" ,"2"\t', 2: '"3" x,4'}
    tabs = land(folder, b'id\tx\n"1" \t"2"\n', "b.csv")
    assert read(folder, tabs, dialect=Csv(delimiter="\t"))[1] == {"id": b"1 ", "x": b"2"}


@pytest.mark.parametrize("content", [b'id,x\n1,2\n2,"3\n3,4\n', b'id,x\n1,2\n"2,3\n3,4\n', b'id,x\n1,2\n2,"3'])
def test_a_quote_that_swallows_the_rest_of_the_file_stops_the_day(folder: LocalFolder, content: bytes) -> None:
    for name, data in (("a.csv", content), ("a.csv.gz", gzip.compress(content))):
        with pytest.raises(UnreadableFileError, match="a quote that opens on line 3 is never closed, so this row"):
            landing_files.inspect(folder, land(folder, data, name), SPANNING)
