import json
import math
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.ingest import quarantine
from batch_scoring.ingest.formats.rows import BrokenRow
from batch_scoring.ingest.schema.contract import Reason
from batch_scoring_tests.tiny import DAY, TinyProject, checks

REASON = Reason("rule", "ge(0)", "x", "-1.0")


def rejected(batch: pa.RecordBatch, key: str = "id") -> quarantine.Rejected:
    [row] = quarantine.from_rows(batch, np.array([7]), {0: REASON}, key, "dt=1/a.csv")
    return row


def cells(**columns: object) -> dict[str, object]:
    """What stands in `raw` of a row with these cells."""
    arrays = {name: value if isinstance(value, pa.Array) else pa.array([value]) for name, value in columns.items()}
    return json.loads(rejected(pa.RecordBatch.from_pydict(arrays)).raw)


def test_a_rejected_row_keeps_its_key_its_place_and_all_of_its_cells() -> None:
    batch = pa.RecordBatch.from_pydict({"x": [-1.0], "id": ["k1"], "extra": ['ü\n"q"']})
    row = rejected(batch)
    assert (row.key, row.source_file, row.row_number, row.reason) == ("k1", "dt=1/a.csv", 7, REASON)
    assert row.raw == '{"x": -1.0, "id": "k1", "extra": "ü\\n\\"q\\""}'


def test_only_the_rows_with_a_reason_are_taken_in_their_order() -> None:
    batch = pa.RecordBatch.from_pydict({"id": [f"k{n}" for n in range(5)]})
    rows = quarantine.from_rows(batch, np.arange(11, 16), {3: REASON, 1: REASON}, "id", "f")
    assert [(row.key, row.row_number) for row in rows] == [("k1", 12), ("k3", 14)]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, None),
        (True, True),
        (2**60, 2**60),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (0.1, 0.1),
        ("ü😀\u2028", "ü😀\u2028"),
        (b"gr\xfcn", "gr\\xfcn"),
        (b"plain", "plain"),
        ("", ""),
        (date(2024, 3, 4), "2024-03-04"),
        (datetime(2024, 3, 4, tzinfo=UTC), "2024-03-04 00:00:00+00:00"),
        ([1, 2], [1, 2]),
        ({"a": 1}, {"a": 1}),
        (pa.array(["red"]).dictionary_encode(), "red"),
        (pa.array([2**62], pa.timestamp("us")), "<value out of range: 4611686018427387904>"),
        (pa.Array.from_buffers(pa.string(), 1, pa.array([b"gr\xfcn"]).buffers()), "gr\\xfcn"),
        (
            pa.DictionaryArray.from_arrays(
                pa.array([0]), pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
            ),
            "\\xff",
        ),
    ],
)
def test_every_cell_has_a_form_in_json(cell: object, expected: object) -> None:
    assert cells(id="k", cell=cell)["cell"] == expected


def test_a_key_is_shown_as_text_and_a_missing_one_is_null() -> None:
    assert rejected(pa.RecordBatch.from_pydict({"id": [17]})).key == "17"
    assert rejected(pa.RecordBatch.from_pydict({"id": pa.array([None], pa.string())})).key is None
    assert rejected(pa.RecordBatch.from_pydict({"id": pa.array([b"k\xf6"])})).key == "k\\xf6"
    assert rejected(pa.RecordBatch.from_pydict({"x": [1]})).key is None


def test_a_row_without_cells_keeps_its_text() -> None:
    row = quarantine.from_broken(BrokenRow(9, "2 cells, but the header has 5", 'a,"b\nc"'), "dt=1/a.csv")
    assert (row.key, row.row_number, json.loads(row.raw)) == (None, 9, 'a,"b\nc"')
    assert row.reason == Reason("read", "cells_match_header", "", "2 cells, but the header has 5")


def test_a_value_that_nobody_could_read_is_shortened_and_says_how_long_it_was() -> None:
    batch = pa.RecordBatch.from_pydict({"id": ["k1"], "c": ["x" * 9_000_000]})
    [row] = quarantine.from_rows(batch, np.array([7]), {0: Reason("rule", "isin", "c", "x" * 9_000_000)}, "id", "f")
    assert row.reason.value == "x" * 200 + "… (9000000 characters)"
    assert json.loads(row.raw) == {"id": "k1", "c": "x" * 10_000 + "… (9000000 characters)"}
    broken = quarantine.from_broken(BrokenRow(9, "line 10: 2 cells", "y" * 20_000), "f")
    assert json.loads(broken.raw) == "y" * 10_000 + "… (20000 characters)"


def test_blanks_around_a_value_are_shown_with_quotes_around_them() -> None:
    def value(cell: object, reason: str | None) -> str | None:
        batch = pa.RecordBatch.from_pydict({"x": [cell]})
        [row] = quarantine.from_rows(batch, np.array([7]), {0: Reason("rule", "ge(0)", "x", reason)}, "id", "f")
        return row.reason.value

    assert value(b" abc\t", "abc") == '" abc\t"'
    assert value(b"abc", "abc") == "abc"
    assert value(b" -1 ", "-1.0") == "-1.0"  # a number is shown as it was understood
    assert value(None, None) is None


def test_rejected_rows_wait_until_they_are_many_or_large() -> None:
    waiting = quarantine.Waiting()
    row = quarantine.from_broken(BrokenRow(9, "2 cells", "y" * 5_000), "f")
    while not waiting.is_full:
        waiting.add(row)
    assert 4 * 1024**2 <= len(waiting) * len(row.raw) < 4 * 1024**2 + len(row.raw)
    assert len(waiting.take()) and not len(waiting) and not waiting.is_full


def test_the_table_has_the_promised_columns_and_the_key_under_its_own_name() -> None:
    table = quarantine.table([rejected(pa.RecordBatch.from_pydict({"flight": [5]}), "flight")], "flight")
    assert table.schema == quarantine.schema("flight")
    assert table.to_pylist() == [
        {
            "flight": "5",
            "rule": "ge(0)",
            "column": "x",
            "value": "-1.0",
            "source_file": "dt=1/a.csv",
            "row_number": 7,
            "raw": '{"flight": 5}',
        }
    ]
    assert quarantine.table([], "flight").num_rows == 0


def test_a_reason_is_named_by_column_and_rule() -> None:
    assert quarantine.reason_name(REASON) == "x: ge(0)"
    assert quarantine.reason_name(Reason("read", "cells_match_header", "", None)) == "cells_match_header"


def test_rejected_rows_of_every_stage_stand_in_the_table_with_their_day(tiny: TinyProject) -> None:
    tiny.land(
        DAY,
        b"id,x,y,n,c\nragged\nk1,abc,1,1,red\nk2,5000,1,1,red\nk3,1,1,1,red\nk3,2,1,1,red\nk4,666,1,1,red\nk5,1,1,1,red\n",
        "a.csv",
    )
    assert all(checks(tiny.run()).values())
    rows = sorted(tiny.read(DAY, "quarantine").to_pylist(), key=lambda row: row["row_number"])
    assert [(r["row_number"], r["id"], r["stage"], r["rule"], r["column"], r["value"]) for r in rows[:4]] == [
        (1, None, "read", "cells_match_header", "", "line 2: 1 cell, but the header has 5"),
        (2, "k1", "schema", "is_double", "x", "abc"),
        (3, "k2", "rule", "less_than_or_equal_to(1000)", "x", "5000.0"),
        (5, "k3", "duplicate", "key_is_unique", "id", "k3"),
    ]
    [poison] = rows[4:]
    assert (poison["id"], poison["stage"], poison["row_number"]) == ("k4", "score", 6)
    assert {str(row["dt"]) for row in rows} == {DAY}
    assert {row["source_file"] for row in rows} == {f"dt={DAY}/a.csv"}
    assert json.loads(rows[1]["raw"]) == {"id": "k1", "x": "abc", "y": "1", "n": "1", "c": "red"}
    assert sorted(tiny.read()["id"].to_pylist()) == ["k3", "k5"]
