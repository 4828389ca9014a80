"""The rows of a published day: predictions, features and decisions side by side."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_scoring.delivery.day_rows import DayRows
from batch_scoring.errors import StateError
from batch_scoring.storage.state import PublishedDay
from batch_scoring_tests.bare_decisions import decide, keys_in_order
from batch_scoring_tests.tiny import DAY, TinyProject


def scored(tiny: TinyProject, *files: pa.Table, rows_per_shard: int = 1_000_000) -> None:
    """Score a day with some files."""
    tiny.spec["scoring"]["rows_per_shard"] = rows_per_shard
    tiny.write_spec()
    for number, rows in enumerate(files):
        tiny.land(DAY, rows, f"{number}.parquet")
    assert tiny.run().success


def without_scores(rows: pa.Table, bad: set[int]) -> pa.Table:
    """Rows of which some get no score: the network gives NaN for this x."""
    values = [555.0 if row in bad else x for row, x in enumerate(rows["x"].to_pylist())]
    return rows.set_column(rows.column_names.index("x"), "x", pa.array(values))


def day_rows(tiny: TinyProject, *, decisions: PublishedDay | None = None) -> DayRows:
    features, predictions = tiny.published_day("validated_features"), tiny.published_day("predictions")
    return DayRows(tiny.pipeline, features, predictions, decisions)


def table(rows: DayRows, *columns: str, batch_rows: int = 65_536) -> list[dict[str, Any]]:
    return [row for batch in rows.read(columns, batch_rows) for row in batch.to_pylist()]


def joined(tiny: TinyProject, *columns: str) -> list[dict[str, Any]]:
    """The same rows, joined by key by other means."""
    features = {row["id"]: row for row in tiny.read(table="validated_features").to_pylist()}
    scores = {row["id"]: row for row in tiny.read().to_pylist()}
    return [{name: {**features[key], **scores[key]}[name] for name in ("id", *columns)} for key in keys_in_order(tiny)]


def test_columns_of_several_tables_are_of_the_same_row(tiny: TinyProject) -> None:
    scored(tiny, tiny.rows(100))
    assert table(day_rows(tiny), "x", "prob_class_1", "c") == joined(tiny, "x", "prob_class_1", "c")


@pytest.mark.parametrize("batch_rows", [1, 7, 65_536])
def test_rows_without_a_score_are_left_out_whatever_the_size_of_batches(tiny: TinyProject, batch_rows: int) -> None:
    rows = without_scores(tiny.rows(60), {0, 1, 30, 59})
    scored(tiny, rows, rows_per_shard=25)
    assert {key for key, stage, *_ in tiny.quarantined() if stage == "score"} == {
        "k0000000",
        "k0000001",
        "k0000030",
        "k0000059",
    }
    found = table(day_rows(tiny), "x", "prediction_proba", batch_rows=batch_rows)
    assert len(found) == 56 and found == joined(tiny, "x", "prediction_proba")


def test_a_shard_in_which_no_row_has_a_score_has_no_rows(tiny: TinyProject) -> None:
    rows = without_scores(tiny.rows(30), set(range(10)))
    scored(tiny, rows, rows_per_shard=10)
    assert [shard.rows for shard in tiny.published_day("predictions").shards] == [0, 10, 10]
    assert table(day_rows(tiny), "x") == joined(tiny, "x")


def test_a_file_without_rows_makes_a_shard_without_rows(tiny: TinyProject) -> None:
    scored(tiny, tiny.rows(10), tiny.rows(0))
    assert sorted(shard.rows for shard in tiny.published_day("predictions").shards) == [0, 10]
    assert table(day_rows(tiny), "x", "prediction") == joined(tiny, "x", "prediction")


def test_decisions_are_looked_up_before_predictions_and_features(tiny: TinyProject) -> None:
    scored(tiny, tiny.rows(20), tiny.rows(9, start=20), rows_per_shard=6)
    rows = day_rows(tiny, decisions=decide(tiny, called=3))
    found = table(rows, "action", "prob_class_1", "x", batch_rows=4)
    assert [row["action"] for row in found] == ["call"] * 3 + ["none"] * 26
    assert [{name: row[name] for name in ("id", "prob_class_1", "x")} for row in found] == joined(
        tiny, "prob_class_1", "x"
    )
    assert table(rows, "model_version")[0]["model_version"] == "of the decisions"
    assert rows.schema.names[:4] == rows.columns_of("decisions") == ["id", "action", "rank", "model_version"]
    assert rows.columns_of("predictions")[:2] == ["id", "prediction"]


def test_the_key_alone_and_an_unknown_column(tiny: TinyProject) -> None:
    scored(tiny, tiny.rows(5))
    rows = day_rows(tiny)
    assert [row["id"] for row in table(rows)] == keys_in_order(tiny)
    with pytest.raises(KeyError, match="nothing"):
        list(rows.read(["x", "nothing"]))


def test_without_features_the_predictions_are_read_alone(tiny: TinyProject) -> None:
    scored(tiny, tiny.rows(5))
    rows = DayRows(tiny.pipeline, None, tiny.published_day("predictions"))
    assert "x" not in rows.schema.names
    assert len(table(rows, "prediction")) == 5


# tables that do not belong together


def test_features_that_were_validated_again_are_refused(tiny: TinyProject) -> None:
    scored(tiny, tiny.rows(5))
    tiny.land(DAY, tiny.rows(6), "0.parquet")
    tiny.run(steps=["raw_input", "validated_features"])
    with pytest.raises(StateError, match=f"{tiny.name} {DAY}: its predictions were scored from other features"):
        day_rows(tiny)


def test_decisions_about_other_predictions_are_refused(tiny: TinyProject) -> None:
    scored(tiny, tiny.rows(5))
    decisions = decide(tiny)
    tiny.deliver("v2", seed=1)
    tiny.run()
    with pytest.raises(StateError, match="its decisions are not about the predictions that are published"):
        day_rows(tiny, decisions=decisions)


@pytest.mark.parametrize("batch_rows", [1, 5])
@pytest.mark.parametrize("change", ["another order", "a row too few"])
def test_rows_that_lie_side_by_side_with_other_keys_are_refused(
    tiny: TinyProject, change: str, batch_rows: int
) -> None:
    scored(tiny, tiny.rows(5))
    keys = keys_in_order(tiny)
    decisions = decide(tiny, keys=keys[::-1] if change == "another order" else keys[:-1])
    with pytest.raises(StateError, match="different keys"):
        list(day_rows(tiny, decisions=decisions).read(["action"], batch_rows))


def test_features_with_a_damaged_file_are_refused(tiny: TinyProject) -> None:
    scored(tiny, tiny.rows(5))
    (path,) = tiny.published_day("validated_features").table.files
    file = f"{tiny.pipeline.output.uri}/tables/validated_features/{path}"
    content = pq.read_table(file)
    pq.write_table(content.take([1, 0, 2, 3, 4]), file)
    with pytest.raises(StateError, match="different keys"):
        table(day_rows(tiny), "x")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch_rows=st.integers(1, 40), columns=st.sets(st.sampled_from(["x", "c", "prediction", "action", "rank", "n"])))
def test_any_columns_in_any_size_of_batches_are_those_of_the_join(
    many_shards: TinyProject, batch_rows: int, columns: set[str]
) -> None:
    wanted = sorted(columns)
    decisions = many_shards.published_day("decisions")
    found = table(day_rows(many_shards, decisions=decisions), *wanted, batch_rows=batch_rows)
    plain = [name for name in wanted if name not in ("action", "rank")]
    assert [{name: row[name] for name in ("id", *plain)} for row in found] == joined(many_shards, *plain)
    if "action" in columns:
        assert [row["action"] for row in found] == ["call"] * 20 + ["none"] * (len(found) - 20)


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    tiny = TinyProject(tmp_path_factory.mktemp("many"))
    rows = without_scores(tiny.rows(70), {3, 11, 12, 13, 14, 15, 40, 69})
    scored(tiny, rows, tiny.rows(7, start=100), rows_per_shard=10)
    decide(tiny, called=20)
    return tiny
