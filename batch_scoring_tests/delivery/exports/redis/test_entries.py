"""Names and values of keys: rows gathered from anywhere in the stream, JSON of every type."""

import json
import math
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.config.delivery_spec import RedisExport
from batch_scoring.delivery.exports.redis import entries as redis_entries
from batch_scoring.delivery.exports.redis.entries import entries, why_not_a_key
from batch_scoring.errors import SinkRefusedError


def export(form: str = "list") -> RedisExport:
    return RedisExport.model_validate(
        {"to": "redis", "url_from": "RECS", "prefix": "rec", "key": "user", "value": "item", "form": form}
    )


def made(rows: pa.Table, form: str = "list", batch: int = 3) -> list[tuple[str, Any]]:
    """The keys with their values, in the order in which they are written."""
    return [
        (name, json.loads(text))
        for names, values in entries(rows.to_batches(max_chunksize=batch), export(form))
        for name, text in zip(names.to_pylist(), values.to_pylist(), strict=True)
    ]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(max_size=4), st.one_of(st.none(), st.text(max_size=6)))), st.integers(1, 9))
def test_rows_with_equal_keys_make_one_list_in_their_order_wherever_they_are(
    rows: list[tuple[str, str | None]], batch: int
) -> None:
    expected: dict[str, list[str | None]] = {}
    for user, item in rows:
        expected.setdefault(user, []).append(item)
    columns = {"user": [user for user, _ in rows], "item": [item for _, item in rows]}
    schema = pa.schema([("user", pa.string()), ("item", pa.string())])
    found = made(pa.table(columns, schema), batch=batch)
    assert dict(found) == expected
    assert len(found) == len(expected)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats())))
def test_numbers_come_back_as_they_were(rows: list[tuple[int, float]]) -> None:
    expected: dict[str, list[float | None]] = {}
    for user, item in rows:
        expected.setdefault(str(user), []).append(item if math.isfinite(item) else None)
    columns = {"user": [user for user, _ in rows], "item": [item for _, item in rows]}
    assert dict(made(pa.table(columns, pa.schema([("user", pa.int64()), ("item", pa.float64())])))) == expected


def test_more_keys_than_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_entries, "_AT_ONCE", 7)
    rows = pa.table({"user": [n % 500 for n in range(2000)], "item": range(2000)})
    assert dict(made(rows, batch=64)) == {str(user): list(range(user, 2000, 500)) for user in range(500)}
    assert made(rows.slice(0, 500), "single", batch=64) == [(str(user), user) for user in range(500)]


@pytest.mark.parametrize("form", ["list", "single"])
def test_a_row_without_a_key_is_refused(form: str) -> None:
    with pytest.raises(SinkRefusedError, match=r"1 rows have no user.*where: user is not None"):
        made(pa.table({"user": ["a", None], "item": [1, 2]}), form)


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (pa.array([-3], pa.int32()), "-3"),
        (pa.array(["ü \r\n$1"]), "ü \r\n$1"),
        (pa.array([date(2026, 11, 28)]), "2026-11-28"),
        (pa.array([True]), "true"),
    ],
)
def test_keys_are_named_as_their_values_are_written(keys: pa.Array, names: str) -> None:
    assert why_not_a_key(keys.type) == ""
    assert made(pa.table({"user": keys, "item": [1]})) == [(names, [1])]


def test_fractions_do_not_name_keys() -> None:
    assert "is double, but keys are named by integers" in why_not_a_key(pa.float64())
    with pytest.raises(SinkRefusedError, match="column user is double"):
        made(pa.table({"user": [0.5], "item": [1]}))
