"""Many rejected rows are the same rows as one by one."""

import json
import math
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.ingest import quarantine, quarantine_blocks
from batch_scoring.ingest.schema.contract import Rejections
from batch_scoring_tests.tiny import DAY, TinyProject

TEXT = st.text('ab "\\\\\n\x00ü\u2003%{', max_size=5) | st.sampled_from(["k" * 200, "", " a", "a\t", "\u3000"])
COLUMNS = {
    "id": (pa.string(), TEXT),
    "%s": (pa.binary(), TEXT.map(str.encode) | st.binary(max_size=3)),
    "x": (pa.float64(), st.floats() | st.sampled_from([math.nan, math.inf, -0.0, 1e300, 0.1])),
    "n": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "b": (pa.bool_(), st.booleans()),
    "t": (pa.timestamp("us", "UTC"), st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))),  # noqa: DTZ001
    "z": (pa.null(), st.none()),
    "d": (pa.decimal128(9, 2), st.decimals(-100, 100, places=2)),
    "w": (pa.dictionary(pa.int32(), pa.string()), TEXT),
}
ROWS = st.lists(st.fixed_dictionaries({name: cell | st.none() for name, (_, cell) in COLUMNS.items()}), max_size=12)


@given(
    rows=ROWS,
    names=st.sets(st.sampled_from(list(COLUMNS))),
    key=st.sampled_from(["id", "n", "%s", "x"]),
    faults=st.lists(st.tuples(st.sampled_from(list(COLUMNS)), st.sets(st.integers(0, 11))), max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_blocks_and_the_other_rows_are_what_rows_alone_would_be(
    rows: list[dict[str, object]], names: set[str], key: str, faults: list[tuple[str, set[int]]]
) -> None:
    names |= {key, *(name for name, _ in faults)}
    form = pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items() if name in names])
    batch = pa.RecordBatch.from_arrays(
        [pa.array([row[field.name] for row in rows], field.type) for field in form], schema=form
    )
    reasons = Rejections(len(rows))
    for column, wrong in faults:
        positions = np.array(sorted(row for row in wrong if row < len(rows)), np.int64)
        reasons.add("rule" if column < "m" else "schema", f"is_{column}", column, positions, batch.column(column))
    numbers = np.arange(len(rows)) * 2 + 7
    given_ = batch, numbers, reasons, key, "a.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quarantine_blocks, "_MIN_ROWS", 0)
        blocks, others = quarantine_blocks.blocks_of(*given_)
    alone = list(quarantine.from_rows(*given_))
    single = list(quarantine.from_rows(*given_, others))
    found = [row for block in blocks for row in as_rows(block.stage, block.rows)]
    found += as_rows_of(single, key)
    by_number = lambda row: row["row_number"]  # noqa: E731
    assert sorted(found, key=by_number) == as_rows_of(alone, key)
    for block in blocks:
        assert block.rows["row_number"].to_pylist() == sorted(block.rows["row_number"].to_pylist())
        assert block.counts == Counter(f"{row['column']}: {row['rule']}" for row in block.rows.to_pylist())


def as_rows(stage: str, rows: pa.RecordBatch) -> list[dict[str, object]]:
    return [{**row, "stage": stage} for row in rows.to_pylist()]


def as_rows_of(rows: list[quarantine.Rejected], key: str) -> list[dict[str, object]]:
    return [each for row in rows for each in as_rows(row.reason.stage, quarantine.table([row], key))]


TEXTS = [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()]


@pytest.mark.parametrize("kind", [*TEXTS, pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_text_of_any_kind_is_shown_also_if_it_is_not_utf8_or_long(kind: pa.DataType) -> None:
    cells = [b"red", b"gr\xfcn", b"l" * 9000, None, b'"q"']
    texts = pa.array(cells, pa.binary())
    plain = pa.Array.from_buffers(pa.string(), len(cells), texts.buffers())  # as a Parquet file may have it
    if pa.types.is_dictionary(kind):
        column = pa.DictionaryArray.from_arrays(pa.array(range(5), pa.int8()), plain)
    else:
        large = texts.cast(pa.large_binary())
        forms = {
            pa.string(): plain,
            pa.binary(): texts,
            pa.large_binary(): large,
            pa.large_string(): pa.Array.from_buffers(pa.large_string(), len(cells), large.buffers()),
        }
        column = forms[kind]
    batch = pa.RecordBatch.from_arrays([pa.array(["a", "b", "c", "d", "e"]), column], ["id", "c"])
    reasons = Rejections(5)
    reasons.add("read", "is_utf8", "c", np.arange(5), column)
    given_ = batch, np.arange(5), reasons, "id", "a.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quarantine_blocks, "_MIN_ROWS", 0)
        [block], others = quarantine_blocks.blocks_of(*given_)
    alone = as_rows_of(list(quarantine.from_rows(*given_)), "id")
    assert as_rows("read", block.rows) == [row for row in alone if row["row_number"] not in others]
    assert others.tolist() == [2]
    block.rows.validate(full=True)


@pytest.mark.parametrize("kind", [pa.string_view(), pa.list_(pa.string())], ids=str)
def test_rows_with_views_or_nested_values_are_put_into_words_one_by_one(kind: pa.DataType) -> None:
    column = pa.array(["a", None, "b"] if kind == pa.string_view() else [["a"], None, ["b", "c"]], kind)
    batch = pa.RecordBatch.from_arrays([pa.array(["x", "y", "z"]), column], ["id", "c"])
    reasons = Rejections(3)
    reasons.add("schema", "is_int64", "id", np.arange(3), batch.column("id"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quarantine_blocks, "_MIN_ROWS", 0)
        blocks, others = quarantine_blocks.blocks_of(batch, np.arange(3), reasons, "id", "a.csv")
    assert (blocks, others.tolist()) == ([], [0, 1, 2])
    rows = list(quarantine.from_rows(batch, np.arange(3), reasons, "id", "a.csv"))
    assert [json.loads(row.raw)["c"] for row in rows] == column.to_pylist()


def test_a_few_rows_are_no_block() -> None:
    batch = pa.RecordBatch.from_pydict({"id": ["a", "b"]})
    reasons = Rejections(2)
    reasons.add("schema", "is_int64", "id", np.array([1]), batch.column("id"))
    blocks, others = quarantine_blocks.blocks_of(batch, np.array([1, 2]), reasons, "id", "a.csv")
    assert (blocks, others.tolist()) == ([], [1])


def test_a_day_of_many_rejected_rows_has_each_of_them_once(tiny: TinyProject) -> None:
    tiny.spec["checks"]["quarantine_is_small"] = {"blocking_share": 1}
    lines = ["id,x,y,n,c"]
    for n in range(1500):
        lines.append(f"k{n % 1400:05d},{'x' if n % 3 == 0 else 1.5},,{'-4' if n % 3 == 1 else 4},{'r' * (n // 5)}")
    tiny.land(DAY, "\n".join(lines).encode(), "a.csv")
    assert tiny.run(steps=["raw_input", "validated_features"]).success
    rows = tiny.read(table="quarantine").to_pylist()
    accepted = tiny.read(table="validated_features")["row_number"].to_pylist()
    assert sorted([*(row["row_number"] for row in rows), *accepted]) == list(range(1, 1501))
    assert Counter(row["stage"] for row in rows)["schema"] == Counter(row["stage"] for row in rows)["rule"] == 500
    for row in rows:
        line = lines[row["row_number"]].split(",")
        cells = {name: cell or None for name, cell in zip(lines[0].split(","), line, strict=True)}
        assert json.loads(row["raw"]) == cells
        assert (row["id"], row["source_file"]) == (cells["id"], f"dt={DAY}/a.csv")
        assert row["value"] == {"is_double": "x", "greater_than_or_equal_to(0)": "-4"}.get(row["rule"], cells["id"])
    [shard] = tiny.published_day("validated_features").shards
    assert shard.quarantined["schema"] == {"x: is_double": 500}
    assert sum(sum(reasons.values()) for reasons in shard.quarantined.values()) == len(rows)
