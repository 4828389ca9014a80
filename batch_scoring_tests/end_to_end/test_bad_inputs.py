"""What a person may upload by mistake, through the whole pipeline.

Each ends in one clear paragraph or in the quarantine with a reason, and never in a half-published day: what was
published of the day before still reads, whole.
"""

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from batch_scoring_tests.tiny import DAY, TinyProject, checks, error_of

HEADER = b"id,x,y,n,c\n"
GOOD = b"g1,1,2,3,red\ng2,1,2,3,blue\n"

Content = bytes | Callable[[TinyProject], bytes]


def parquet(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    return sink.getvalue()


def text(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pa.csv.write_csv(rows, sink)
    return sink.getvalue()


def replaced(tiny: TinyProject, column: str, values: list[object] | pa.Array, start: int = 100) -> pa.Table:
    rows = tiny.rows(len(values), start=start)
    return rows.set_column(rows.column_names.index(column), column, [pa.array(values)])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    """A project with one good file a.parquet that is scored: yesterday's version of the day."""
    tiny = TinyProject(tmp_path_factory.mktemp("bad_inputs"))
    tiny.land(DAY, tiny.rows(20), "a.parquet", age=100)
    tiny.run()
    return tiny


def everything(tiny: TinyProject) -> list[object]:
    """All that a reader can see of the day."""
    tables = [tiny.read(table=name) for name in ("predictions", "validated_features", "quarantine")]
    return [*tables, tiny.published_day("predictions"), tiny.published_day("validated_features")]


def outcome(tiny: TinyProject, files: dict[str, bytes]) -> dg.ExecuteInProcessResult:
    """Run the day with more files, which are gone afterwards."""
    try:
        for name, content in files.items():
            tiny.land(DAY, content, name)
        return tiny.run(raise_on_error=False)
    finally:
        for name in files:
            Path(tiny.pipeline.landing.uri, f"dt={DAY}", name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Refused:
    """An input that stops the day."""

    name: str
    content: Content
    says: tuple[str, ...]
    """What the message must hold."""
    step: str = "raw_input"
    """The step that fails; those before it have done their work."""


REUPLOAD = "upload it again"
REFUSED = {
    "truncated Parquet": Refused(
        "b.parquet",
        lambda tiny: parquet(tiny.rows(50))[:-20],
        ("b.parquet (", "is not a complete Parquet file", "it may be truncated or in another format", REUPLOAD),
    ),
    "Parquet with its head cut off": Refused(
        "b.parquet",
        lambda tiny: parquet(tiny.rows(50))[300:],
        ("b.parquet (", "its pages are damaged", REUPLOAD),
        step="validated_features",
    ),
    "Parquet with a damaged page": Refused(
        "b.parquet",
        lambda tiny: (whole := parquet(tiny.rows(50)))[:60] + b"\xff" * 40 + whole[100:],
        ("b.parquet (", "its pages are damaged", REUPLOAD),
        step="validated_features",
    ),
    "wrong magic": Refused(
        "b.parquet",
        b"PK\x03\x04" + b"x" * 500,
        ("b.parquet (504 bytes) is not a complete Parquet file", "or in another format", REUPLOAD),
    ),
    "CSV named Parquet": Refused(
        "b.parquet", HEADER + GOOD, ("b.parquet (", "is not a complete Parquet file", REUPLOAD)
    ),
    "Parquet named CSV": Refused(
        "b.csv", lambda tiny: parquet(tiny.rows(50)), ("b.csv (", "is not a complete CSV file", REUPLOAD)
    ),
    "CSV with semicolons": Refused(
        "b.csv",
        (HEADER + GOOD).replace(b",", b";"),
        ("b.csv has no column id, x, y, n, c", "it has id;x;y;n;c", 'set input: {csv: {delimiter: ";"}}'),
        step="validated_features",
    ),
    "CSV with tabs": Refused(
        "b.csv",
        (HEADER + GOOD).replace(b",", b"\t"),
        ("b.csv has no column id", r'set input: {csv: {delimiter: "\t"}}'),
        step="validated_features",
    ),
    "UTF-16": Refused(
        "b.csv", (HEADER + GOOD).decode().encode("utf-16"), ("b.csv (", "its header must be UTF-8", REUPLOAD)
    ),
    "header in latin-1": Refused(
        "b.csv", b"id,gr\xf6\xdfe,x,y,n,c\n", ("b.csv (", "byte 0xf6 in position 2", "its header must be UTF-8")
    ),
    "empty CSV": Refused("b.csv", b"", ("b.csv (0 bytes)", "it is empty", "a header, a line or a Parquet footer")),
    "empty Parquet": Refused("b.parquet", b"", ("b.parquet (0 bytes)", "it is empty")),
    "blank lines only": Refused("b.csv", b"\n\n", ("b.csv (2 bytes)", "it has no header line", REUPLOAD)),
    "open quote in the header": Refused(
        "b.csv", b'id,x,y,"n,c\n1,1,1,1,red\n', ("b.csv (", "its header: a quote is not closed on its line", REUPLOAD)
    ),
    "missing column in Parquet": Refused(
        "b.parquet",
        lambda tiny: parquet(tiny.rows(5).drop_columns(["x"])),
        (
            "b.parquet has no column x",
            "schema:Rows of ",
            " requires",
            "it has id, y, n, c",
            "upload the file with all columns",
        ),
        step="validated_features",
    ),
    "missing column in CSV": Refused(
        "b.csv", b"id,y,n,c\n", ("b.csv has no column x", "it has id, y, n, c"), step="validated_features"
    ),
    "missing column in JSON Lines": Refused(
        "b.jsonl",
        b'{"id": "k1", "X": 1, "n": 2}\n',
        ("b.jsonl has no column x", "it has id, X, n, y, c", "names must be the same", "('X' for 'x')"),
        step="validated_features",
    ),
    "column twice": Refused("b.csv", b"id,x,x,y,n,c\n", ("b.csv (", "more than one column 'x'", "names: rename")),
    "retyped column": Refused(
        "b.parquet",
        lambda tiny: parquet(replaced(tiny, "x", ["1", "2"])),
        (
            "b.parquet: column x is string",
            "schema:Rows of ",
            " expects double",
            "upload the file with the declared type",
        ),
        step="validated_features",
    ),
    "integers turned floats between two files of a day": Refused(
        "b.parquet",
        lambda tiny: parquet(replaced(tiny, "n", [1.0, None, 3.0])),
        ("b.parquet: column n is double", "expects int64", "or change the schema"),
        step="validated_features",
    ),
    "stray file": Refused(
        "notes.txt",
        b"hello",
        (
            "notes.txt (5 bytes)",
            "its name ends in none of .parquet, .csv, .csv.gz, .jsonl",
            "if it is not data, rename it to begin with '_'",
        ),
    ),
    "truncated gzip": Refused(
        "b.csv.gz",
        lambda tiny: gzip.compress(text(tiny.rows(3000)))[:-500],
        ("b.csv.gz (", "Truncated compressed stream", "it may be truncated", REUPLOAD),
    ),
    "gzip without its last bytes": Refused(
        "b.csv.gz", gzip.compress(HEADER + GOOD)[:-4], ("b.csv.gz (", "it may be truncated", REUPLOAD)
    ),
    "gzip with a wrong checksum": Refused(
        "b.csv.gz", gzip.compress(HEADER + GOOD)[:-8] + bytes(8), ("b.csv.gz (", "incorrect data check", REUPLOAD)
    ),
    "CSV named gzip": Refused("b.csv.gz", HEADER + GOOD, ("b.csv.gz (", "it is not compressed, but its name ends in")),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pyarrow decodes broken rows itself
@pytest.mark.parametrize("case", REFUSED)
def test_an_unreadable_input_is_one_clear_paragraph_and_yesterdays_version_stands(
    published: TinyProject, case: str
) -> None:
    refused = REFUSED[case]
    content = refused.content if isinstance(refused.content, bytes) else refused.content(published)
    before = everything(published)
    result = outcome(published, {refused.name: content})
    message = error_of(result).strip()
    assert f"{published.pipeline.landing.uri}/dt={DAY}/{refused.name}" in message
    assert [part for part in refused.says if part not in message] == [], message
    assert "\n" not in message
    done = {event.asset_key.path[-1] for event in result.get_asset_materialization_events()}
    assert done == {"model"} | ({"raw_input"} if refused.step == "validated_features" else set())
    assert everything(published) == before


@dataclass(frozen=True)
class Quarantined:
    """An input of which some rows are rejected."""

    name: str
    content: Content
    rejected: set[tuple[str | None, str, str, str]]
    """Key, stage, rule and column."""
    scored: set[str]
    """Keys that are scored besides those of the good file."""


LE, GE = "less_than_or_equal_to(1000)", "greater_than_or_equal_to(0)"
TAKEN = {
    "BOM": Quarantined("b.csv", b"\xef\xbb\xbf" + HEADER + GOOD, set(), {"g1", "g2"}),
    "cells in latin-1": Quarantined(
        "b.csv",
        HEADER + GOOD + b"k\xf6,1,2,3,red\nk9,1,2,3,gr\xfcn\n",
        {("k\\xf6", "read", "is_utf8", "id"), ("k9", "read", "is_utf8", "c")},
        {"g1", "g2"},
    ),
    "latin-1 in Parquet": Quarantined(
        "b.parquet",
        lambda tiny: parquet(
            replaced(tiny, "c", pa.Array.from_buffers(pa.string(), 2, pa.array([b"red", b"gr\xfcn"]).buffers()))
        ),
        {("k0000101", "read", "is_utf8", "c")},
        {"k0000100"},
    ),
    "ragged row in latin-1": Quarantined(
        "b.csv", HEADER + GOOD + b"k\xf6,1\n", {(None, "read", "cells_match_header", "")}, {"g1", "g2"}
    ),
    "a quote that nothing closes": Quarantined(
        "b.csv",
        HEADER + b'k1,1,2,3,"5 pipe\n' + GOOD + b'k2,1,2,3,half 5"\nk3,1,2,3,"re\n',
        {(None, "read", "quotes_are_closed", "")},
        {"g1", "g2", "k2"},
    ),
    "a backslash before a quote": Quarantined(
        "b.csv",
        HEADER + b'"L\\"1",1,2,3,red\n"L\\"2\\"",1,2,3,red\n' + GOOD,
        {(None, "read", "quotes_end_cells", "")},
        {"g1", "g2"},
    ),
    "text behind a quote": Quarantined(
        "b.csv", HEADER + b'"k1"x,1,2,3,red\n' + GOOD, {(None, "read", "quotes_end_cells", "")}, {"g1", "g2"}
    ),
    "blanks around cells": Quarantined(
        "b.csv",
        b' id ,x, y,n,c\n g1,1 ,\t2,3, red \n"g1 ",1,2,3,red\n\xc2\xa0g2,1, ,3,red\n ,1,2,3,red\n',
        {("g1 ", "duplicate", "key_is_unique", "id"), (" ", "rule", "not_nullable", "id")},
        {"g1", "g2"},
    ),
    "header only": Quarantined("b.csv", HEADER, set(), set()),
    "zero rows": Quarantined("b.parquet", lambda tiny: parquet(tiny.rows(0)), set(), set()),
    "nothing but ragged rows": Quarantined(
        "b.csv", HEADER + b"1,2\n1,2,3,4,5,6\n", {(None, "read", "cells_match_header", "")}, set()
    ),
    "extra column": Quarantined(
        "b.csv", b"id,extra,x,y,n,c\ng1,?,1,2,3,red\nk1,gr\xfcn,5000,2,3,red\n", {("k1", "rule", LE, "x")}, {"g1"}
    ),
    "columns in another order": Quarantined("b.csv", b"c,n,y,x,id\nred,1,2,3,g1\n", set(), {"g1"}),
    "cells of another type in CSV": Quarantined(
        "b.csv", HEADER + GOOD + b"k1,abc,2,3,red\n", {("k1", "schema", "is_double", "x")}, {"g1", "g2"}
    ),
    "integers turned floats in CSV": Quarantined(
        "b.csv", HEADER + GOOD + b"k1,1,2,3.0,red\n", {("k1", "schema", "is_int64", "n")}, {"g1", "g2"}
    ),
    "null keys": Quarantined(
        "b.csv", HEADER + GOOD + b",1,2,3,red\n,4,5,6,red\n", {(None, "rule", "not_nullable", "id")}, {"g1", "g2"}
    ),
    "blank keys": Quarantined(
        "b.csv", HEADER + GOOD + b'"",1,2,3,red\n"",4,5,6,red\n', {("", "rule", "key_is_not_blank", "id")}, {"g1", "g2"}
    ),
    "blank keys of Parquet": Quarantined(
        "b.parquet",
        lambda tiny: parquet(replaced(tiny, "id", ["", "  ", "g1"])),
        {(blank, "rule", "key_is_not_blank", "id") for blank in ("", "  ")},
        {"g1"},
    ),
    "null where a value must be": Quarantined(
        "b.csv", HEADER + GOOD + b"k1,,2,3,red\n", {("k1", "rule", "not_nullable", "x")}, {"g1", "g2"}
    ),
    "duplicate keys in a file": Quarantined(
        "b.csv", HEADER + GOOD + b"g2,9,9,9,red\n", {("g2", "duplicate", "key_is_unique", "id")}, {"g1", "g2"}
    ),
    "duplicate keys across files": Quarantined(
        "b.parquet",
        lambda tiny: parquet(tiny.rows(2)),
        {("k0000000", "duplicate", "key_is_unique", "id"), ("k0000001", "duplicate", "key_is_unique", "id")},
        set(),
    ),
    "NaN and infinity in CSV": Quarantined(
        "b.csv",
        HEADER + GOOD + b"k1,nan,2,3,red\nk2,1,inf,3,red\nk3,1,-inf,3,red\n",
        {("k1", "rule", "is_finite", "x"), ("k2", "rule", "is_finite", "y"), ("k3", "rule", "is_finite", "y")},
        {"g1", "g2"},
    ),
    "NaN and infinity in Parquet": Quarantined(
        "b.parquet",
        lambda tiny: parquet(replaced(tiny, "y", [1.0, float("nan"), float("inf")])),
        {("k0000101", "rule", "is_finite", "y"), ("k0000102", "rule", "is_finite", "y")},
        {"k0000100"},
    ),
    "out of range": Quarantined(
        "b.csv",
        HEADER + GOOD + b"k1,1001,2,3,red\nk2,1,2,-1,red\n",
        {("k1", "rule", LE, "x"), ("k2", "rule", GE, "n")},
        {"g1", "g2"},
    ),
    "unknown category": Quarantined("b.csv", HEADER + b"g1,1,2,3,ultraviolet\n", set(), {"g1"}),
    "ids with unicode, quotes and delimiters": Quarantined(
        "b.csv",
        HEADER + '"k ""q"" 😀, new",1,2,3,red\n"b ""q"" é, x",5000,2,3,red\n'.encode(),
        {('b "q" é, x', "rule", LE, "x")},
        {'k "q" 😀, new'},
    ),
    "dates beyond all calendars beside a bad cell": Quarantined(
        "b.parquet",
        lambda tiny: parquet(
            replaced(tiny, "x", [1.0, 5000.0]).append_column("when", pa.array([2**62] * 2, pa.timestamp("us")))
        ),
        {("k0000101", "rule", LE, "x")},
        {"k0000100"},
    ),
    "lines of JSON": Quarantined(
        "b.jsonl",
        b"\n".join(
            [
                b'{"id": "g1", "x": 1, "y": 2.5, "n": 3, "c": "red", "new": {"a": [1]}}',
                b'{"id": "k1", "x": 1, "n": 3.0, "c": "red"}',
                b'{"id": "k2", "x": 5000, "n": 3, "c": "red"}',
                b'{"id": "k3", "x": 1, "n": 3, "c": "gr\xfcn"}',
                b'{"id": "k4", "n": 3, "c": "red"}',
                b'{"id": "k5", "x": NaN, "n": 3}',
                b'{"id": "k6", "x": 1, "n": 3',
                b"null",
                b'{"id": "g1", "x": 2, "n": 3}',
                b'{"id": "g2", "x": 1, "n": 3, "y": null}',
            ]
        ),
        {
            (None, "read", "fields_have_declared_types", ""),
            ("k2", "rule", LE, "x"),
            ("k3", "read", "is_utf8", "c"),
            ("k4", "rule", "not_nullable", "x"),
            ("k5", "rule", "is_finite", "x"),
            (None, "read", "line_is_an_object", ""),
            ("g1", "duplicate", "key_is_unique", "id"),
        },
        {"g1", "g2"},
    ),
    "JSON Lines without an object": Quarantined(
        "b.jsonl", b"[\n{\n]\n", {(None, "read", "line_is_an_object", "")}, set()
    ),
    "gzip of several members": Quarantined(
        "b.csv.gz", gzip.compress(HEADER + b"g1,1,2,3,red\n") + gzip.compress(b"g2,1,2,3,red\n"), set(), {"g1", "g2"}
    ),
    "Windows line ends": Quarantined("b.csv", (HEADER + GOOD).replace(b"\n", b"\r\n"), set(), {"g1", "g2"}),
}


@pytest.mark.parametrize("case", TAKEN)
def test_bad_rows_are_quarantined_with_their_reason_and_the_others_scored(published: TinyProject, case: str) -> None:
    taken = TAKEN[case]
    content = taken.content if isinstance(taken.content, bytes) else taken.content(published)
    result = outcome(published, {taken.name: content})
    assert result.success, error_of(result)
    assert all(checks(result).values())
    assert published.quarantined() == taken.rejected
    keys = published.read()["id"].to_pylist()
    assert sorted(keys) == sorted({f"k{n:07d}" for n in range(20)} | taken.scored)
    published_day = published.published_day("validated_features")
    assert (
        published_day.rows_in
        == published_day.rows + published_day.rows_quarantined
        == published.state.day_input(DAY).rows
    )


@pytest.mark.parametrize("day", ["1999-12-31", "2024-02-30", "../../etc", "dt=2024-03-04"])
def test_a_day_that_does_not_exist_is_refused_by_name(published: TinyProject, day: str) -> None:
    with pytest.raises(dg.DagsterUnknownPartitionError, match=f"Could not find a partition with key `{day}`"):
        published.run(day)


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "dt=1/../../secret.csv", "..\\secret.csv"])
def test_a_pinned_path_that_leaves_the_landing_folder_is_refused(tiny: TinyProject, path: str) -> None:
    tiny.land(DAY, tiny.rows(5))
    tiny.run()
    before = everything(tiny)
    pinned = tiny.state.day_input(DAY)
    forged = pinned.files[0].model_copy(update={"path": path})
    tiny.state.put_day_input(pinned.model_copy(update={"files": (forged,), "fingerprint": "0" * 64}))
    result = tiny.run(steps=["validated_features"], raise_on_error=False)
    assert f"{path!r} leads out of its folder; expected a relative path without '..'" in error_of(result)
    assert everything(tiny) == before


DIALECTS = {
    "line breaks in cells": (
        {"newlines": True},
        HEADER + b'"k\n1",1,2,3,red\nk2,1,2,3,"re\nk3,1,2,3,red\nk4,1,2,3,"\nk5,1,2,3,red\n',
        {"k\n1", "k5"},
        {2: 'k2,1,2,3,"re\nk3,1,2,3,red\nk4,1,2,3,"'},
    ),
    "no quotes": (
        {"quote": "none", "delimiter": "|"},
        HEADER.replace(b",", b"|") + b'"k1|1|2|3|red\nk2|1|2|3|"red\n',
        {'"k1', "k2"},
        {},
    ),
    "a backslash before quotes": (
        {"escape": "\\"},
        HEADER + b'"L\\"1",1,2,3,red\nC:\\new,1,2,3,red\n',
        {'L"1', "C:\\new"},
        {},
    ),
    "blanks that are meant": ({"trim": False}, HEADER + b"k1,1,2,3,red\nk1 , 1,2,3,red\n", {"k1", "k1 "}, {}),
}


@pytest.mark.parametrize("case", DIALECTS)
def test_a_spec_says_how_its_files_are_written(tiny: TinyProject, case: str) -> None:
    dialect, content, scored, rejected = DIALECTS[case]
    tiny.spec["input"]["csv"] = dialect
    tiny.write_spec()
    tiny.land(DAY, content, "a.csv")
    result = tiny.run()
    assert result.success, error_of(result)
    assert set(tiny.read()["id"].to_pylist()) == scored
    found = {row["row_number"]: json.loads(row["raw"]) for row in tiny.read(table="quarantine").to_pylist()}
    assert found == rejected
    published_day = tiny.published_day("validated_features")
    assert published_day.rows_in == len(scored) + len(rejected)


def test_a_page_that_is_damaged_stops_the_day_at_its_file(tiny: TinyProject) -> None:
    sink = io.BytesIO()
    pq.write_table(tiny.rows(3), sink, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(sink.getvalue())
    x = tiny.rows(3)["x"].combine_chunks().buffers()[1].to_pybytes()[:24]
    content[content.index(x)] ^= 1
    tiny.land(DAY, bytes(content), "b.parquet")
    result = tiny.run(raise_on_error=False)
    assert not result.success
    assert f"dt={DAY}/b.parquet" in error_of(result) and "its pages are damaged: upload it again" in error_of(result)


def test_what_no_schema_asks_for_is_not_decoded(tiny: TinyProject) -> None:
    rows = tiny.rows(3)
    nested = pa.array([[{"a": [1, 2]}]] * 3)
    tiny.land(DAY, parquet(rows.append_column("nested", nested)), "b.parquet")
    tiny.land(DAY, b"id,x,y,n,c,extra\nk9,5000,1,1,red,?\n", "c.csv")
    assert tiny.run().success
    [row] = tiny.read(table="quarantine").to_pylist()
    assert json.loads(row["raw"]) == {"id": "k9", "x": "5000", "y": "1", "n": "1", "c": "red"}


def test_a_day_that_needs_another_dialect_says_which_setting_it_is(tiny: TinyProject) -> None:
    tiny.land(DAY, HEADER + b'"L\\"1",1,2,3,red\n"L\\"2\\"",1,2,3,red\n', "a.csv")
    message = error_of(tiny.run(raise_on_error=False))
    assert "quotes_end_cells (2 rows; see input.csv.escape and quote in the spec)" in message
