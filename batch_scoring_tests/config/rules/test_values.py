"""Columns on which Arrow's own comparisons raise, or say what they do not mean."""

import time
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from batch_scoring.config.rules.expressions import Rule


def holds(text: str, **columns: pa.Array) -> list[bool | None]:
    rows = pa.record_batch(columns)
    found: list[bool | None] = Rule.parse(text, "r").bind(rows.schema)(rows).to_pylist()
    return found


LARGE = 2**53 + 1
"""No float64 holds it."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"n == {LARGE}", [True, False, None]),
        (f"n == {LARGE - 1}", [False, False, None]),
        ("n in [5, 6]", [False, True, None]),
        ("n in [5.0, 0.5]", [False, True, None]),
        ("n > 5.5", [True, False, None]),
        ("n > f", [True, False, None]),
        ("n + 0.5 > 6", [True, False, None]),
        ("-n < -5", [True, False, None]),
    ],
)
def test_integers_are_compared_exactly_and_beside_fractions_as_float64(text: str, expected: list[bool | None]) -> None:
    assert holds(text, n=pa.array([LARGE, 5, None]), f=pa.array([1.5, 5.5, 1.0], pa.float32())) == expected


@pytest.mark.parametrize("kind", [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.int8()])
def test_a_type_of_small_or_unsigned_integers_takes_any_number(kind: pa.DataType) -> None:
    column = pa.array([1, 100, None], kind)
    assert holds("n > -1 and n < 300 and -n < 0", n=column) == [True, True, None]
    assert holds("n - 2 < 0", n=column) == [True, False, None]


def test_an_unsigned_integer_of_64_bits_does_not_fail() -> None:
    column = pa.array([2**64 - 1, 1], pa.uint64())
    assert holds("n > 5", n=column) == [True, False]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_times_of_every_unit_and_zone_are_compared_as_instants(unit: str, zone: str | None) -> None:
    noon = datetime(2026, 3, 8, 12, tzinfo=UTC)
    column = pa.array([noon if zone else noon.replace(tzinfo=None), None], pa.timestamp(unit, zone))
    assert holds("t == '2026-03-08T12:00' and t == '2026-03-08T08:00-04:00'", t=column) == [True, None]
    assert holds("t > '2026-03-08' and t < day", t=column, day=pa.array([date(2026, 3, 9)] * 2)) == [True, None]


def test_times_without_a_zone_are_in_utc_wherever_the_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    column = pa.array([datetime(2026, 3, 8, 12, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert holds("t == '2026-03-08T12:00'", t=column) == [True]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_nanoseconds_are_no_failure() -> None:
    column = pa.array([1_001, 999], pa.timestamp("ns", "UTC"))
    assert holds("t > '1970-01-01'", t=column) == [True, False]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.large_string())])
def test_text_of_every_type_is_compared(kind: pa.DataType) -> None:
    column = pa.array(["a", "b", None]).cast(kind)
    assert holds("s in ['a', 'q']", s=column) == [True, False, None]
    assert holds("s not in ['a', 'q'] or s == 'a'", s=column) == [True, True, None]
    assert holds("s >= 'b'", s=column) == [False, True, None]


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array([Decimal("1.50"), Decimal("2.00")]), "v > 1.75 and v == 2"),
        (pa.array([date(2026, 1, 1), date(2026, 1, 2)], pa.date64()), "v > '2026-01-01'"),
        (pa.array([False, True]), "v > False"),
        (pa.array([float("nan"), 1.0]), "v == v"),
        (pa.array([float("-inf"), float("inf")]), "v > 1e300"),
    ],
)
def test_other_types(column: Any, text: str) -> None:  # noqa: ANN401  (an array of any type)
    assert [found is True for found in holds(text, v=column)] == [False, True]
