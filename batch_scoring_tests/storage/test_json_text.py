"""Cells and rows as JSON: what Python's json writes, of any type."""

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.storage.json_text import json_lines, json_text

SCHEMA = pa.schema(
    [
        ('te"xt', pa.string()),
        ("whole", pa.int64()),
        ("single", pa.float32()),
        ("double", pa.float64()),
        ("yes", pa.bool_()),
        ("on", pa.date32()),
        ("at", pa.timestamp("us", "UTC")),
        ("é", pa.large_string()),
    ]
)
ROW = st.tuples(
    *(
        st.one_of(st.none(), values)
        for values in (
            st.text(max_size=5),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(width=32),
            st.floats(),
            st.booleans(),
            st.dates(),
            st.datetimes(timezones=st.just(UTC)),
            st.text('ab\n"', max_size=5),
        )
    )
)


@pytest.mark.parametrize(
    ("value", "type_", "text"),
    [
        (7, pa.int8(), "7"),
        (2**64 - 1, pa.uint64(), "18446744073709551615"),
        (0.1, pa.float32(), "0.1"),
        (1e-7, pa.float64(), "1e-7"),
        (math.nan, pa.float64(), "null"),
        (-math.inf, pa.float32(), "null"),
        (math.nan, pa.float16(), "null"),
        (True, pa.bool_(), "true"),
        (None, pa.string(), "null"),
        (None, pa.null(), "null"),
        ('"\\/é\u2028', pa.string(), '"\\"\\\\/é\u2028"'),
        ("a\n\x00", pa.large_string(), '"a\\n\\u0000"'),
        (date(2026, 11, 28), pa.date32(), '"2026-11-28"'),
        (datetime(2026, 11, 28, 3, tzinfo=UTC), pa.timestamp("us", "UTC"), '"2026-11-28T03:00:00+00:00"'),
        (Decimal("1.50"), pa.decimal128(5, 2), '"1.50"'),
        ([1, None], pa.list_(pa.int64()), "[1, null]"),
        ([], pa.list_(pa.int64()), "[]"),
        (None, pa.list_(pa.int64()), "null"),
        ([0.1, math.nan, -2.0], pa.list_(pa.float32()), "[0.1, null, -2]"),
        (['"', None], pa.large_list(pa.string()), '["\\"", null]'),
        ([[1], []], pa.list_(pa.list_(pa.int64())), "[[1], []]"),
    ],
)
def test_values_are_json(value: object, type_: pa.DataType, text: str) -> None:
    assert json_text(pa.array([value], type_)).to_pylist() == [text]
    assert json_text(pa.array([None, value, value], type_).slice(1, 1)).to_pylist() == [text]


@settings(max_examples=100)
@given(st.lists(ROW, max_size=5), st.integers(0, 2))
def test_lines_are_those_of_python(rows: list[tuple[Any, ...]], start: int) -> None:
    batch = pa.RecordBatch.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA)
    batch = batch.slice(start)
    lines = [
        json.dumps({name: plain(value) for name, value in row.items()}, ensure_ascii=False) + "\n"
        for row in batch.to_pylist()
    ]
    assert json_lines(batch).to_pybytes().decode() == "".join(lines)


def plain(value: Any) -> Any:  # noqa: ANN401  (a cell of any type)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if isinstance(value, date) else value
