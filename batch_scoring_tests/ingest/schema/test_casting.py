"""Which cells fit a type is Arrow's word for each of them alone, found for all of them at once."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch_scoring.ingest.schema import casting

QUICK = settings(max_examples=60, deadline=None)
UTC = pa.timestamp("us", "UTC")
TYPES = [
    pa.int64(),
    pa.int32(),
    pa.int16(),
    pa.int8(),
    pa.float64(),
    pa.float32(),
    pa.bool_(),
    pa.date32(),
    UTC,
]
EDGES = [
    "",
    " ",
    "-",
    "+1",
    "-0",
    "007",
    "0x10",
    "0X",
    "7.0",
    "7.",
    ".5",
    ".",
    "1e3",
    "1E+3",
    "1e",
    "--1",
    "1_0",
    "１",
    "127",
    "128",
    "-128",
    "-129",
    "0" * 30 + "127",
    "32768",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "9" * 40,
    "1e400",
    "-1e400",
    "inf",
    "-Infinity",
    "+nan",
    "NaN(a_1)",
    "nan(-)",
    "infinit",
    "true",
    "FALSE",
    "tRuE",
    "t",
    "yes",
    "0",
    "1",
    "00",
    "2024-02-29",
    "2023-02-29",
    "1900-02-29",
    "2000-02-29",
    "0000-01-01",
    "0000-02-29",
    "9999-12-31",
    "2024-04-31",
    "2024-13-01",
    "2024-00-10",
    "2024-01-00",
    "2024-1-1",
    "20240101",
    "2024-01-01T",
    "2024-01-01T00",
    "2024-01-01 10:00",
    "2024-01-01T10:00:00.123456",
    "2024-01-01T10:00:00.1234567",
    "2024-01-01T10:00:00.",
    "2024-01-01T24:00",
    "2024-01-01T23:60",
    "2024-01-01T23:59:60",
    "2024-01-01T10:00Z",
    "2024-01-01T10:00z",
    "2024-01-01T10:00+02",
    "2024-01-01T10:00+0230",
    "2024-01-01T10:00+02:30",
    "2024-01-01T10:00+24:00",
    "2024-01-01T10:00+02:60",
    "2024-01-01Z",
    "2024-02-30T10:00Z",
    "2024-01-01t10:00",
    "soon",
]
CELLS = (
    st.sampled_from(EDGES)
    | st.text("0123456789+-.eExXinfaNTZ: _", max_size=8)
    | st.integers(-(10**20), 10**20).map(str)
    | st.floats().map(str)
    | st.dates().map(str)
    | st.datetimes().map(str)
    | st.from_regex(
        r"[0-9]{4}-[01][0-9]-[0-3][0-9]([ T][0-2][0-9](:[0-6][0-9]){0,2}(\.[0-9]{1,7})?)?(Z|[+-][0-2][0-9])?",
        fullmatch=True,
    )
)


def one_by_one(cells: Sequence[str | None], kind: pa.DataType) -> list[object]:
    """Each cell cast by Arrow in an array of its own, as text; False if it does not fit."""
    found: list[object] = []
    for cell in cells:
        text = pa.array([cell], pa.string())
        if cell is not None and not casting.is_plain(text):
            text = pa.compute.utf8_trim_whitespace(text)
        if pa.types.is_timestamp(kind):
            text = casting._in_utc(text)
        try:
            if pa.types.is_integer(kind):
                text = casting._decimal(text)
            found.append(text.cast(kind).cast(pa.string())[0].as_py())
        except pa.ArrowInvalid:
            found.append(False)
    return found


@pytest.mark.parametrize("kind", TYPES, ids=str)
@given(cells=st.lists(CELLS | st.none(), max_size=8))
@QUICK
@example(cells=EDGES)
@example(cells=["１"])
def test_a_cell_fits_among_others_as_it_does_alone(kind: pa.DataType, cells: list[str | None]) -> None:
    typed, wrong, _ = casting.cast(pa.array(cells, pa.string()), kind)
    found = typed.cast(pa.string()).to_pylist()
    assert [False if row in wrong else found[row] for row in range(len(cells))] == one_by_one(cells, kind)


@pytest.mark.parametrize("kind", TYPES, ids=str)
@given(cells=st.lists(CELLS | st.none(), max_size=8))
@QUICK
@example(cells=EDGES)
def test_a_mask_names_all_cells_that_do_not_fit_so_that_nothing_is_halved(
    kind: pa.DataType, cells: list[str | None]
) -> None:
    texts = pa.compute.utf8_trim_whitespace(pa.array(cells, pa.string()))
    _, _, misfits = casting._of_text(texts, kind, coerce=False)
    assert misfits().tolist() == [alone is False for alone in one_by_one(cells, kind)]


BYTES = (
    st.binary(max_size=6)
    | st.text(max_size=4).map(str.encode)
    | st.sampled_from(
        [
            b"\xf0",
            b"\xc3",
            b"a\xe2\x82",
            b"\xed\xa0\x80",
            b"\xc0\x80",
            b"\xe0\x80\x80",
            b"\xf4\x90\x80\x80",
            b"\x80",
            b"\xff",
        ]
    )
)


@given(cells=st.lists(BYTES | st.none(), max_size=12), start=st.integers(0, 3))
@QUICK
@example(cells=[b"\xf0", b"abc", b"\xc3", b"\xa9", None, b"\xe2\x82\xac"], start=0)
def test_bytes_are_utf8_or_not_each_for_themselves(cells: list[bytes | None], start: int) -> None:
    values = pa.array([*[b"\xff"] * start, *cells], pa.binary()).slice(start)
    found, wrong = casting.decode(values)

    def alone(cell: bytes | None) -> str | bool | None:
        try:
            return None if cell is None else cell.decode()
        except UnicodeDecodeError:
            return False

    assert [False if row in wrong else found[row].as_py() for row in range(len(cells))] == [
        alone(cell) for cell in cells
    ]
    assert casting._is_not_utf8(values).tolist() == [alone(cell) is False for cell in cells]


WHOLE = st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300)


@pytest.mark.parametrize("kind", TYPES[:4], ids=str)
@given(values=st.lists(WHOLE | st.none(), max_size=8))
@QUICK
def test_whole_numbers_fit_a_narrower_type_or_not(kind: pa.DataType, values: list[int | None]) -> None:
    typed, wrong, _ = casting.cast(pa.array(values, pa.int64()), kind)
    bounds = np.iinfo(kind.to_pandas_dtype())
    assert wrong.tolist() == [
        row for row, value in enumerate(values) if value is not None and not bounds.min <= value <= bounds.max
    ]
    assert typed.to_pylist() == [None if row in wrong else value for row, value in enumerate(values)]


def test_unsigned_numbers_and_far_times_fit_or_not() -> None:
    typed, wrong, _ = casting.cast(pa.array([1, 2**63, None, 2**64 - 1], pa.uint64()), pa.int64())
    assert (typed.to_pylist(), wrong.tolist()) == ([1, None, None, None], [1, 3])
    seconds = pa.array([0, 2**62, None, -(2**62), 253402300799], pa.timestamp("s"))
    typed, wrong, _ = casting.cast(seconds, UTC)
    assert wrong.tolist() == [1, 3]
    assert typed.cast(pa.int64()).to_pylist() == [0, None, None, None, 253402300799 * 10**6]


SPEED = {
    "int": (pa.int64(), "%d", ["x%d", "7.5", "9" * 25, "0x10"]),
    "float": (pa.float64(), "%d.25", ["x%d", "1,5"]),
    "bool": (pa.bool_(), "true", ["maybe"]),
    "date": (pa.date32(), "2024-03-05", ["2024-02-30", "05.03.2024"]),
    "timestamp": (UTC, "2024-03-05 10:00:01", ["2024-02-30 10:00:01", "soon %d"]),
}


@pytest.mark.parametrize("name", SPEED)
def test_a_column_that_is_wrong_in_every_row_takes_few_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Not one for each cell, and half of one: the time itself stands in `benchmarks.rejected`."""
    kind, _, bad = SPEED[name]
    monkeypatch.setattr(casting, "_by_bisection", lambda *_: pytest.fail("a cell was looked for by bisection"))
    for form in bad:
        cells = [form % n if "%" in form else form for n in range(1000)]
        typed, wrong, shown = casting.cast(pa.array(cells), kind)
        assert (typed.null_count, len(wrong)) == (1000, 1000)
        assert shown.to_pylist() == cells


# what a schema coerces


@pytest.mark.parametrize(
    ("values", "kind", "expected", "wrong"),
    [
        (
            pa.array([360.0, 360.5, None, -0.0, 2.0**53, 2.0**63, -(2.0**63), float("nan"), float("inf")]),
            pa.int64(),
            [360, None, None, 0, 2**53, None, -(2**63), None, None],
            [1, 5, 7, 8],
        ),
        (pa.array([127.0, 128.0], pa.float32()), pa.int8(), [127, None], [1]),
        (
            pa.array(
                ["360.0", "360.", "360", "+360", "360.5", "3.6e2", "1e-1", "9007199254740993.0", "1e300", "x", None]
            ),
            pa.int64(),
            [360, 360, 360, 360, None, 360, None, 2**53 + 1, None, None, None],
            [4, 6, 8, 9],
        ),
        (pa.array([True, False, None]), pa.int64(), [1, 0, None], []),
        (pa.array([True, None]), pa.float64(), [1.0, None], []),
        (pa.array(["1.5", "x", " 2 "]), pa.float64(), [1.5, None, 2.0], [1]),
        (pa.array([0, 1, 2, None]), pa.bool_(), [False, True, None, None], [2]),
        (pa.array([0.0, 1.0, 0.5]), pa.bool_(), [False, True, None], [2]),
        (pa.array(["true", "0.0", "1", "yes"]), pa.bool_(), [True, False, True, None], [3]),
        (pa.array([7, None]), pa.string(), ["7", None], []),
        (pa.array([7.0, 0.1, 1e16, float("nan"), None]), pa.string(), ["7.0", "0.1", "1e+16", None, None], []),
        (pa.array([True, False, None]), pa.string(), ["True", "False", None], []),
        (pa.array([19000, None], pa.date32()), UTC, [19000 * 86_400_000_000, None], []),
        (pa.array([86400, 86401, None], pa.timestamp("s")), pa.date32(), [1, None, None], [1]),
        (pa.array(["2024-01-01", "soon"]).dictionary_encode(), pa.date32(), [19723, None], [1]),
    ],
)
def test_a_value_of_another_kind_is_taken_if_it_is_exactly_one_of_the_type(
    values: pa.Array, kind: pa.DataType, expected: list[object], wrong: list[int]
) -> None:
    assert casting.fits(values.type, kind, coerce=True)
    assert not casting.fits(values.type, kind)
    typed, found, _ = casting.cast(values, kind, coerce=True)
    assert typed.type == kind
    if pa.types.is_temporal(kind):
        typed = typed.cast(pa.int64() if kind == UTC else pa.int32())
    assert (typed.to_pylist(), found.tolist()) == (expected, wrong)
    for row in range(len(values)):
        alone, bad, _ = casting.cast(values.slice(row, 1), kind, coerce=True)
        assert (len(bad) == 1) == (row in wrong)
        assert alone.cast(typed.type)[0].as_py() == expected[row]
