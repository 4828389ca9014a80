"""The rows of an export: rule, order, maximum, columns."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batch_scoring.delivery.exports import selection
from batch_scoring.delivery.exports.published import of_day
from batch_scoring.delivery.exports.selection import Selection, select
from batch_scoring.errors import RuleError, SinkRefusedError
from batch_scoring_tests.bare_decisions import decide
from batch_scoring_tests.exports import NAME, scored, unchecked
from batch_scoring_tests.tiny import DAY, TinyProject


class Rows:
    """Rows of a day in the shards' order, which is not the key's."""

    def __init__(self, count: int, batch_rows: int = 7) -> None:
        keys = list(range(count))
        random.Random(1).shuffle(keys)
        score = [None if key % 10 == 3 else (key * 7 % 5) / 4 for key in keys]
        self.table = pa.table({"id": keys, "score": score, "name": [f"n{key}" for key in keys]})
        self._batch_rows = batch_rows

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self.table.select(list(dict.fromkeys(["id", *columns]))).to_batches(self._batch_rows)


def read(rows: Rows, **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    schema = pa.schema([("name", pa.string()), ("id", pa.int64())])
    chosen = Selection(
        rows, **{"schema": schema, "sort_keys": [("id", "ascending")], "read_besides": ["id", "score"]} | fields
    )
    batches = list(chosen.read())
    assert all(batch.schema == chosen.schema for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def keys(found: list[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in found]


def test_without_an_order_rows_are_sorted_by_key_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(100)
    assert keys(read(rows)) == list(range(100))
    monkeypatch.setattr(selection, "SORTED_ROWS", 20)
    found = keys(read(rows))
    assert sorted(found) == list(range(100)) != found
    assert found[:21] == sorted(rows.table["id"].to_pylist()[:21])  # three batches of seven


@pytest.mark.parametrize("sorted_rows", [10, 1000])
@pytest.mark.parametrize("most", [0, 1, 15, 99, 500])
def test_the_first_rows_of_an_order_whatever_is_held_at_a_time(
    monkeypatch: pytest.MonkeyPatch, sorted_rows: int, most: int
) -> None:
    monkeypatch.setattr(selection, "SORTED_ROWS", sorted_rows)
    rows = Rows(100)
    known = sorted(rows.table.to_pylist(), key=lambda row: (row["score"] is None, -(row["score"] or 0), row["id"]))
    found = read(rows, sort_keys=[("score", "descending"), ("id", "ascending")], is_whole=True, most=most)
    assert keys(found) == [row["id"] for row in known][:most]


def test_a_row_is_selected_only_if_the_rule_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(100)
    found = read(rows, where=lambda batch: pc.greater_equal(batch["score"], 0.75))
    known = [row["id"] for row in rows.table.to_pylist() if row["score"] is not None and row["score"] >= 0.75]
    assert keys(found) == sorted(known)
    assert read(rows, where=lambda batch: pc.greater(batch["score"], 9)) == []


def test_rows_can_be_read_again() -> None:
    chosen = Selection(Rows(9), pa.schema([("id", pa.int64())]), [("id", "descending")], is_whole=True)
    assert [list(chosen.read()), list(chosen.read())][0] == list(chosen.read())


# of the spec


def chosen(tiny: TinyProject, **fields: Any) -> Selection:  # noqa: ANN401
    pipeline = unchecked(tiny, **fields)
    return select(pipeline, NAME, of_day(tiny.state, pipeline.spec.exports[NAME], DAY))


def test_all_columns_of_the_exported_table_unless_some_are_named(tiny: TinyProject) -> None:
    scored(tiny)
    whole = chosen(tiny)
    assert whole.schema.names == [
        "id",
        "prediction",
        "prediction_proba",
        "prob_class_0",
        "prob_class_1",
        "model_version",
        "scored_at",
    ]
    assert keys([row for batch in whole.read() for row in batch.to_pylist()]) == sorted(tiny.read()["id"].to_pylist())
    some = chosen(tiny, columns=["prob_class_1", "x", "id"])
    assert some.schema.names == ["prob_class_1", "x", "id"]
    features = {row["id"]: row["x"] for row in tiny.read(table="validated_features").to_pylist()}
    assert all(row["x"] == features[row["id"]] for batch in some.read() for row in batch.to_pylist())


def test_an_order_by_a_feature_that_is_not_exported(tiny: TinyProject) -> None:
    scored(tiny)
    found = chosen(tiny, columns=["id"], order="-x", most=3)
    features = sorted(tiny.read(table="validated_features").to_pylist(), key=lambda row: -row["x"])
    assert [row for batch in found.read() for row in batch.to_pylist()] == [{"id": row["id"]} for row in features[:3]]


def test_decisions_in_their_rank_with_columns_of_every_table(tiny: TinyProject) -> None:
    scored(tiny)
    decide(tiny, called=4)
    found = chosen(tiny, of="decisions", columns=["rank", "id", "prob_class_1", "c"], order="rank", most=4)
    rows = [row for batch in found.read() for row in batch.to_pylist()]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    scores = {row["id"]: row["prob_class_1"] for row in tiny.read().to_pylist()}
    assert all(row["prob_class_1"] == scores[row["id"]] for row in rows)


def test_the_rule_of_the_spec_selects_rows_by_columns_of_any_table(tiny: TinyProject) -> None:
    scored(tiny, rows=40)
    found = chosen(tiny, columns=["id"], where="c in ['red', 'blue'] and y > 3")
    rows = tiny.read(table="validated_features").to_pylist()
    known = [row["id"] for row in rows if row["c"] in ("red", "blue") and row["y"] is not None and row["y"] > 3]
    assert 0 < len(known) < 20
    assert [row["id"] for batch in found.read() for row in batch.to_pylist()] == known
    with pytest.raises(RuleError, match=rf"exports\.{NAME}\.where"):
        chosen(tiny, where="prob_class_9 > 3")


def test_text_is_plain(tiny: TinyProject) -> None:
    scored(tiny)
    assert chosen(tiny, columns=["c", "model_version"]).schema.types == [pa.string(), pa.string()]


def test_a_list_in_redis_needs_its_key_and_value_alone(tiny: TinyProject) -> None:
    scored(tiny)
    found = chosen(tiny, to="redis", path=None, url_from="URL", prefix="rec", key="c", value="x", order="-prob_class_1")
    assert found.schema.names == ["c", "x"]
    same = chosen(tiny, to="redis", path=None, url_from="URL", prefix="rec", key="id", value="id")
    assert same.schema.names == ["id"]


@pytest.mark.parametrize("fields", [{"columns": ["id", "prob_class_9"]}, {"order": "-prob_class_9"}])
def test_an_unknown_column_is_named_with_those_that_there_are(tiny: TinyProject, fields: dict[str, Any]) -> None:
    scored(tiny)
    with pytest.raises(
        SinkRefusedError, match=rf"exports\.{NAME}: no column 'prob_class_9' .* there are: id, prediction.*, x, "
    ):
        chosen(tiny, **fields)
