"""JSON Lines: a row is a line, a bad line costs itself, and the values are those of Python's json."""

import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch_scoring.config.spec import Csv
from batch_scoring.errors import UnreadableFileError
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.formats import json_lines
from batch_scoring.ingest.formats.rows import BrokenRow
from batch_scoring.ingest.schema.compiled import Column
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring_tests.landed import land

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

TIMES = pa.timestamp("us", "UTC")
COLUMNS = {
    "id": Column("id", pa.string(), nullable=False),
    "a": Column("a", pa.float64(), nullable=True),
    "n": Column("n", pa.int64(), nullable=True),
    "b": Column("b", pa.bool_(), nullable=True),
    "t": Column("t", TIMES, nullable=True),
}
COERCED = {name: Column(name, c.type, c.nullable, coerce=True) for name, c in COLUMNS.items()}


def read(
    folder: LocalFolder, content: bytes, columns: Mapping[str, Column] | None = COLUMNS, name: str = "a.jsonl"
) -> tuple[dict[int, dict[str, Any]], dict[int, BrokenRow]]:
    """Return the rows and the broken rows of a file by their numbers. Text is bytes."""
    good: dict[int, dict[str, Any]] = {}
    bad: dict[int, BrokenRow] = {}
    file = land(folder, content, name)
    with landing_files.open_rows(folder, file, Csv(), columns) as rows:
        for block in rows.read(0, 2**62):
            raw = [c.cast(pa.binary()) if c.type == pa.string() else c for c in block.batch.columns]
            batch = pa.RecordBatch.from_arrays(raw, block.batch.schema.names)
            good |= dict(zip(block.numbers.tolist(), batch.to_pylist(), strict=True))
            bad |= {row.number: row for row in block.broken}
    assert len(good) + len(bad) == landing_files.inspect(folder, file, Csv()).rows
    assert sorted([*good, *bad]) == list(range(1, len(good) + len(bad) + 1))
    return good, bad


FULL = b'{"id": "k1", "a": 1.5, "n": 2, "b": true, "t": "2024-03-04T10:00:00Z"}'
GOOD: dict[bytes, dict[str, Any]] = {
    FULL: {"id": b"k1", "a": 1.5, "n": 2, "b": True, "t": b"2024-03-04T10:00:00Z"},
    b'{"id": "k", "a": 7}': {"id": b"k", "a": 7.0},
    b'{"id": "k", "a": 1e3, "n": -9223372036854775808}': {"id": b"k", "a": 1000.0, "n": -(2**63)},
    b'{"id": "k", "a": null}': {"id": b"k"},
    b"{}": {},
    b' \t{"id": "k"} \r': {"id": b"k"},
    b'{"\\u0069d": "\\u00e9\\ud83d\\ude00"}': {"id": "é😀".encode()},
    b'{"id": "} null {", "x": {"y": [1, {"id": "no"}, null]}}': {"id": b"} null {"},
    b'{"x": 1, "x": 2, "id": "k"}': {"id": b"k"},
    b'{"id": "\xff"}': {"id": b"\xff"},  # not UTF-8: the contract's business, as in Parquet
    b'{"id": "a\\u0000b"}': {"id": b"a\0b"},
}
AN_OBJECT, OF_TYPE = "line_is_an_object", "fields_have_declared_types"
BAD: dict[bytes, tuple[str, str]] = {
    b'{"id": "k", "a": "1.5"}': (OF_TYPE, 'a is the text "1.5"; expected a number; Field(coerce=True) in the schema'),
    b'{"a": true}': (OF_TYPE, "a is true; expected a number; Field(coerce=True)"),
    b'{"n": 1.5}': (OF_TYPE, "n is the number 1.5; expected a whole number; Field(coerce=True)"),
    b'{"n": 1.0}': (OF_TYPE, "n is the number 1.0; expected a whole number"),
    b'{"n": 1e2}': (OF_TYPE, "n is the number 1e2; expected a whole number"),
    b'{"n": 9223372036854775808}': (OF_TYPE, "n is the number 9223372036854775808; expected a whole number"),
    b'{"n": ' + b"9" * 5000 + b"}": (OF_TYPE, "n is the number 9999"),
    b'{"id": 7}': (OF_TYPE, "id is the number 7; expected text; Field(coerce=True) in the schema accepts it"),
    b'{"b": 1}': (OF_TYPE, "b is the number 1; expected true or false"),
    b'{"t": 1709546400}': (OF_TYPE, "t is the number 1709546400; expected text"),
    b'{"id": {"id": "k"}}': (OF_TYPE, "id is an object; expected text"),
    b'{"a": [1, 2]}': (OF_TYPE, "a is an array; expected a number"),
    b'{"a": 1e400}': (AN_OBJECT, "Number too big"),
    b'{"a": 1, "a": 2}': (AN_OBJECT, "it has the field 'a' more than once"),
    b'{"id": "\\ud800"}': (AN_OBJECT, "The surrogate pair in string is invalid"),
    b'{"id": "k", "a"': (AN_OBJECT, "it is not one JSON object: "),
    b'{"id": "k"}{"id": "l"}': (AN_OBJECT, "it is not one JSON object: Extra data (character 12)"),
    b'{"id": "k"} null {"id": "l"}': (AN_OBJECT, "it is not one JSON object: Extra data (character 13)"),
    b"": (AN_OBJECT, "it is blank; expected one JSON object on each line"),
    b" \r": (AN_OBJECT, "it is blank"),
    b"null": (AN_OBJECT, "it begins with 'null'; expected one JSON object on each line"),
    b"[1]": (AN_OBJECT, "it begins with '[1]'"),
    b"7": (AN_OBJECT, "it begins with '7'"),
    b'{"id": "k"},': (AN_OBJECT, "it is not one JSON object: Extra data"),
    b"{'id': 'k'}": (AN_OBJECT, "it is not one JSON object: Expecting property name enclosed in double quotes"),
    b'{"id": "k"}\0': (AN_OBJECT, "it is not one JSON object: Extra data"),
    b'{"id": "a\0b"}': (AN_OBJECT, "Invalid control character"),
    b'{"a": 01}': (AN_OBJECT, "Expecting ',' delimiter"),
    b'{"x": ' + b"[" * 100_000 + b"}": (AN_OBJECT, "it is nested too deeply"),
}


@pytest.mark.parametrize("line", GOOD, ids=repr)
def test_a_line_is_read_as_python_reads_it(folder: LocalFolder, line: bytes) -> None:
    expected = dict.fromkeys(COLUMNS) | GOOD[line]
    for content, number in ((line, 1), (line + b"\n", 1), (FULL + b"\n" + line + b"\n" + FULL, 2), (b"x\n" + line, 2)):
        good, bad = read(folder, content)
        assert good[number] == expected and set(bad) <= {number - 1}


@pytest.mark.parametrize("line", BAD, ids=lambda line: repr(line[:40]))
def test_a_bad_line_costs_itself_and_its_reason_says_where_and_why(folder: LocalFolder, line: bytes) -> None:
    rule, detail = BAD[line]
    content = b"\n".join([FULL, line, *[FULL] * 5, line, FULL])
    good, bad = read(folder, content)
    assert list(good) == [1, 3, 4, 5, 6, 7, 9] and all(row == GOOD[FULL] for row in good.values())
    assert [row.rule for row in bad.values()] == [rule, rule]
    assert bad[2].detail.startswith("line 2: ") and detail in bad[2].detail and len(bad[2].detail) < 250
    assert "\n" not in bad[2].detail and bad[8].detail.startswith("line 8: ")
    assert bad[2].text.encode() == line.rstrip(b"\r")
    if line.strip():
        alone = read(folder, line)[1]
        assert alone[1].detail == bad[2].detail.replace("line 2", "line 1")


def test_not_a_number_and_infinity_are_left_to_the_contract_which_rejects_the_cell(folder: LocalFolder) -> None:
    good, bad = read(folder, b'{"a": NaN}\n{"a": Infinity}\n{"a": -Infinity}')
    assert np.isnan(good[1]["a"]) and [good[2]["a"], good[3]["a"]] == [np.inf, -np.inf] and not bad


# objects over several lines, several objects on a line: Arrow alone would count as many rows as there are lines


@pytest.mark.parametrize(
    "content",
    [
        b'{"id": "1"}{"id": "2"}\n{"id":\n"3"}',
        b'{"id": "1"}{"id": "2"}\n\n{"id": "3"}',
        b'{"id": "1"} null\n{"id": "2"}\nnull',
        b'{"x": [{"id": "1"}\n{"id": "2"}]}{"id": "3"}',
    ],
)
def test_no_row_is_made_of_parts_of_two_lines(folder: LocalFolder, content: bytes) -> None:
    good, bad = read(folder, content)
    lines = content.split(b"\n")
    assert {number: json.loads(lines[number - 1])["id"].encode() for number in good} == {
        number: row["id"] for number, row in good.items()
    }
    assert len(good) + len(bad) == len(lines)


LINE = st.one_of(
    st.sampled_from([*GOOD, *BAD]).filter(lambda line: len(line) < 100),
    st.dictionaries(
        st.sampled_from([*COLUMNS, "x"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
        max_size=4,
    ).map(lambda fields: json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from([b"{", b"}", b'"', b"id", b":", b"null", b"1", b",", b"\0", b"\xff", b" ", b"\r"])).map(
        b"".join
    ),
)


def truth(line: bytes) -> dict[str, Any] | None:
    """What Python makes of a line in the declared types; None if it is no row."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs if name in COLUMNS]
        if len(names) > len(set(names)):
            raise ValueError("twice")
        return dict(pairs)

    try:
        found = json.loads(line.decode("utf-8", "surrogateescape").strip(" \t\r\n"), object_pairs_hook=once)
    except ValueError:
        return None
    kinds = {"id": str, "a": int | float, "n": int, "b": bool, "t": str}
    if not isinstance(found, dict) or not all(_is(found.get(name), kind) for name, kind in kinds.items()):
        return None
    if isinstance(found.get("n"), int) and not -(2**63) <= found["n"] < 2**63:
        return None
    try:
        json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogateescape")
        values = {name: found.get(name) for name in COLUMNS}
        values["a"] = None if values["a"] is None else float(values["a"])
    except (UnicodeEncodeError, OverflowError):  # half a surrogate pair; an integer beyond float64
        return None
    if values["a"] is not None and np.isinf(values["a"]):
        return None
    return {k: v.encode("utf-8", "surrogateescape") if isinstance(v, str) else v for k, v in values.items()}


def _is(value: object, kind: Any) -> bool:  # noqa: ANN401  (a class or a union)
    return value is None or (isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool))


@given(
    lines=st.lists(LINE, max_size=30),
    end=st.sampled_from([b"", b"\n", b"\r\n", b"\n\n \n"]),
    block=st.sampled_from([512, 1 << 20]),
    few=st.sampled_from([2, 1024]),
    batch_rows=st.sampled_from([1, 7, 131_072]),
    zipped=st.booleans(),
)
@example(lines=[b"", b"{}"], end=b"\r\n", block=512, few=2, batch_rows=7, zipped=False)
@example(lines=[b'{"id": "1"}{"id": "2"}', b'{"id":', b'"3"}'], end=b"", block=512, few=2, batch_rows=7, zipped=False)
@QUICK
def test_every_line_is_one_row_and_its_values_are_those_of_pythons_json_whatever_is_around_it(
    folder: LocalFolder,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[bytes],
    end: bytes,
    block: int,
    few: int,
    batch_rows: int,
    zipped: bool,
) -> None:
    monkeypatch.setattr(json_lines, "BLOCK", block)
    monkeypatch.setattr(json_lines, "_FEW", few)
    content = b"\n".join(lines) + end
    lines = content.rstrip(b" \t\r\n").split(b"\n") if content.strip(b" \t\r\n") else []
    name = "a.jsonl.gz" if zipped else "a.jsonl"
    file = land(folder, gzip.compress(content) if zipped else content or b"\n", name)
    good: dict[int, Any] = {}
    bad: dict[int, Any] = {}
    with landing_files.open_rows(folder, file, Csv(), COLUMNS, batch_rows) as rows:
        for part in rows.read(0, 2**62):
            assert len(part) <= batch_rows
            binary = [c.cast(pa.binary()) if c.type == pa.string() else c for c in part.batch.columns]
            values = pa.RecordBatch.from_arrays(binary, part.batch.schema.names).to_pylist()
            good |= dict(zip(part.numbers.tolist(), values, strict=True))
            bad |= {row.number: row.detail for row in part.broken}
    expected = {number: truth(line) for number, line in enumerate(lines, start=1)}
    assert good == {number: row for number, row in expected.items() if row is not None}, bad
    assert sorted(bad) == [number for number, row in expected.items() if row is None]
    assert landing_files.inspect(folder, file, Csv()).rows == len(lines)


# coercion


def test_under_coercion_other_kinds_of_values_reach_the_contract_as_text(folder: LocalFolder) -> None:
    lines = [
        FULL,
        b'{"id": 7, "a": "1.5", "n": 1.0, "b": 1, "t": null}',
        b'{"id": true, "a": true, "n": false, "b": "false"}',
        b'{"id": [7]}',
        b'{"id": "k", "t": 1709546400}',
        b'{"id": 8, "x": "\\ud800"}',
        b'{"id": 9, "x": "\xff"}',
    ]
    good, bad = read(folder, b"\n".join(lines), COERCED)
    assert good == {
        1: {"id": b"k1", "a": b"1.5", "n": b"2", "b": b"true", "t": b"2024-03-04T10:00:00Z"},
        2: {"id": b"7", "a": b"1.5", "n": b"1.0", "b": b"1", "t": None},
        3: {"id": b"True", "a": b"1", "n": b"0", "b": b"false", "t": None},
    }
    assert [bad[number].rule for number in (4, 5, 6, 7)] == [OF_TYPE, OF_TYPE, AN_OBJECT, "is_utf8"]
    assert "id is an array" in bad[4].detail and "coerce" not in bad[4].detail
    assert bad[7].detail == "line 7: it is not UTF-8"


def test_under_coercion_of_some_columns_the_others_stay_strict(folder: LocalFolder) -> None:
    good, bad = read(folder, b'{"id": 7, "n": 2}\n{"id": "k", "n": 2.0}', COLUMNS | {"id": COERCED["id"]})
    assert good == {1: {"id": b"7", "a": None, "n": 2, "b": None, "t": None}}
    assert "n is the number 2.0; expected a whole number" in bad[2].detail


# columns


def columns_of(folder: LocalFolder, content: bytes) -> pa.Schema:
    with landing_files.open_rows(folder, land(folder, content, "a.jsonl"), Csv(), COLUMNS) as rows:
        return rows.schema


def test_a_file_has_the_fields_of_its_first_lines_and_those_that_may_be_missing(folder: LocalFolder) -> None:
    schema = columns_of(folder, b'{"n": 1, "new": "x"}\n\n{"n": 2, "deep": {"er": 1}, "new": null}')
    assert schema.names == ["n", "new", "deep", "a", "b", "t"]  # id, which may not be null, is missing
    assert columns_of(folder, b"x\ny").names == list(COLUMNS), "none is missing: each line has its own reason"
    late = b'{"a": 1}\n' * json_lines.HEAD_LINES + b'{"id": "late"}'
    assert "id" not in columns_of(folder, late).names


def test_without_declarations_columns_have_the_types_of_the_first_lines(folder: LocalFolder) -> None:
    content = b'{"s": "x", "i": 1, "f": 1, "b": false, "m": 1, "o": {}, "l": [1], "z": null}\n{"f": 0.5, "m": "x"}'
    file = land(folder, content, "a.ndjson")
    found = landing_files.inspect(folder, file, Csv()).columns
    assert found == {
        **{"s": "string", "i": "int64", "f": "double", "b": "bool", "m": "string"},
        **{"o": "struct<>", "l": "list<item: null>", "z": "null"},
    }
    with landing_files.open_rows(folder, file, Csv()) as rows:
        [part] = rows.read(0, 2**62)
    assert part.batch.schema.names == ["s", "i", "f", "b", "m", "z"] and len(part.broken) == 1


# files


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson", "a.ndjson.gz"])
def test_every_ending_is_read_with_windows_line_ends_and_a_byte_order_mark(folder: LocalFolder, name: str) -> None:
    content = b"\xef\xbb\xbf" + b"\r\n".join([FULL, b'{"a": tru}', FULL]) + b"\r\n"
    good, bad = read(folder, gzip.compress(content) if name.endswith("gz") else content, name=name)
    assert good == {1: GOOD[FULL], 3: GOOD[FULL]} and bad[2].text == '{"a": tru}'


def test_a_truncated_archive_and_a_line_without_end_are_refused(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress(FULL * 1000)
    with pytest.raises(UnreadableFileError, match=r"a\.jsonl\.gz .* is not a complete JSON Lines file"):
        read(folder, packed[:-20], name="a.jsonl.gz")
    with pytest.raises(UnreadableFileError, match=r"it is empty \(0 bytes\); expected a header, a line or"):
        read(folder, b"")
    monkeypatch.setattr(json_lines, "BLOCK", 1024)
    with pytest.raises(
        UnreadableFileError, match="a row is longer than 1024 bytes: expected one JSON object on each line"
    ):
        read(folder, b'{"id": "' + b"x" * 5_000)


def test_ranges_of_rows_are_read_forwards_and_batches_are_bounded(folder: LocalFolder) -> None:
    lines = [b"x" if number % 10 == 3 else b'{"id": "%d"}' % number for number in range(1, 101)]
    file = land(folder, b"\n".join(lines), "a.jsonl")
    with landing_files.open_rows(folder, file, Csv(), COLUMNS, 7) as rows:
        numbers = []
        for start in range(0, 100, 25):
            for part in rows.read(start, start + 25):
                here = sorted([*part.numbers.tolist(), *(row.number for row in part.broken)])
                assert start < here[0] and here[-1] <= start + 25 and len(here) <= 7
                assert [row["id"] for row in part.batch.to_pylist()] == [str(n) for n in part.numbers]
                numbers += here
        assert numbers == list(range(1, 101)) and rows.share == 1.0


def test_a_day_of_bad_lines_calls_arrow_for_few_of_them(folder: LocalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    parse = json_lines._parse

    def counted(text: bytes, schema: pa.Schema) -> pa.Table:
        nonlocal calls
        calls += 1
        return parse(text, schema)

    monkeypatch.setattr(json_lines, "_parse", counted)
    file = land(folder, b'{"id": 7}\n' * 20_000, "a.jsonl")
    with landing_files.open_rows(folder, file, Csv(), COLUMNS) as rows:
        assert sum(len(part.broken) for part in rows.read(0, 2**62)) == 20_000
    assert calls < 100


def test_memory_is_that_of_a_block_however_small_the_rows(folder: LocalFolder) -> None:
    before = pa.total_allocated_bytes()
    peak = 0
    with landing_files.open_rows(folder, land(folder, b"{}\n" * 2_000_000, "a.jsonl"), Csv(), COLUMNS) as rows:
        for part in rows.read(0, 2**62):
            peak = max(peak, pa.total_allocated_bytes() - before)
            assert len(part) <= 131_072
    assert peak < 60e6


def test_lists_of_numbers_are_read_as_declared(folder: LocalFolder) -> None:
    columns = {"v": Column("v", pa.list_(pa.float64()), nullable=True)}
    good, bad = read(folder, b'{"v": [1, 2.5]}\n{"v": ["x"]}\n{"v": 1}\n{"v": []}\n{}', columns)
    assert good == {1: {"v": [1.0, 2.5]}, 4: {"v": []}, 5: {"v": None}} and list(bad) == [2, 3]


def test_json_lines_never_parse_what_only_has_to_be_counted(
    folder: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = land(folder, b"x\n" * 5_000, "a.jsonl")
    monkeypatch.setattr(json_lines, "_parse", None)
    assert landing_files.inspect(folder, file, Csv()).rows == 5_000
