"""Scoring a day costs what has changed, publishes the whole day or nothing, and accounts for every row."""

import shutil
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from dagster_shared.serdes import serialize_value

from batch_scoring.config.compute import VARIABLE
from batch_scoring.daily.publish import DayStep
from batch_scoring.daily.tables import TABLES, predictions_table
from batch_scoring.errors import NotPublishedError
from batch_scoring.storage import shards
from batch_scoring.storage.state import ShardStats
from batch_scoring_tests.tiny import DAY, NEXT_DAY, SCHEMA, TinyProject, checks, error_of

SCORES = ["id", "prediction", "prediction_proba", "prob_class_0", "prob_class_1"]


def metadata(result: dg.ExecuteInProcessResult, step: str = "predictions") -> dict[str, object]:
    """The figures of a step's materialisation."""
    event = next(e for e in result.get_asset_materialization_events() if e.asset_key.path[-1] == step)
    return {name: value.value for name, value in event.materialization.metadata.items()}


def changed(rows: pa.Table, column: str, values: dict[str, object]) -> pa.Table:
    """The rows with other values in a column, by key."""
    new = [values.get(key, value) for key, value in zip(rows["id"].to_pylist(), rows[column].to_pylist(), strict=True)]
    return rows.set_column(rows.column_names.index(column), column, pa.array(new, rows.schema.field(column).type))


def active(tiny: TinyProject, day: str = DAY) -> set[str]:
    return set(tiny.published_day("predictions", day).table.files)


# what a step took


def test_what_the_pods_of_a_day_reserve_is_recorded(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps run in this process, defined as for pods."""
    monkeypatch.setenv(VARIABLE, "k8s")
    tiny.spec["compute"] = {
        "default": {"cpu": 0.5, "memory": "1Gi"},
        "predictions": {"cpu": 3, "memory": "4Gi", "gpu": 2},
    }
    tiny.spec["prices"] = {"cpu_hour": 0.04, "gb_hour": 0.005, "gpu_hour": 2}
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(100))
    result = tiny.run()
    for step, cores, gigabytes, gpus in (("validated_features", 0.5, 1, 0), ("predictions", 3, 4, 2)):
        usage = tiny.published_day(step).usage
        assert usage is not None
        assert usage.reserved_cpu_seconds == pytest.approx(cores * usage.wall_seconds, abs=0.001)
        assert usage.reserved_memory_byte_seconds == pytest.approx(gigabytes * 2**30 * usage.wall_seconds, rel=0.01)
        assert usage.reserved_gpu_seconds == pytest.approx(gpus * usage.wall_seconds, abs=0.001)
        hourly = cores * 0.04 + gigabytes * 0.005 + gpus * 2
        figures = metadata(result, step)
        assert figures["cost"] == pytest.approx(hourly * usage.wall_seconds / 3600, rel=0.02)
        assert (figures["gpu_seconds"], figures["currency"]) == (0, "USD"), "a reserved GPU is not a used one"


# what a day costs


@pytest.mark.parametrize("name", ["0-sorts-first.parquet", "z-sorts-last.parquet"])
def test_adding_a_file_scores_only_that_file(tiny: TinyProject, name: str) -> None:
    tiny.land(DAY, tiny.rows(100), "a.parquet", age=100)
    tiny.land(DAY, tiny.rows(100, start=100), "b.parquet", age=100)
    tiny.run()
    before, first = active(tiny), tiny.read()
    took = {shard.source: shard.usage for shard in tiny.published_day("predictions").shards}
    tiny.land(DAY, tiny.rows(50, start=200), name)
    figures = metadata(tiny.run())
    assert figures["shards_reused"] == 2 and figures["files"] == 3
    published = tiny.published_day("predictions")
    assert took.items() < {shard.source: shard.usage for shard in published.shards}.items(), "what they took then"
    assert published.usage and figures["cpu_seconds"] == published.usage.cpu_seconds > 0
    assert published.overhead and figures["overhead_cpu_seconds"] == published.overhead.cpu_seconds > 0
    assert before < active(tiny)
    scored = tiny.read()
    assert scored.num_rows == 250
    assert scored.slice(0, 200).equals(first), "scored_at too: the rows are those of the first run"


def test_a_corrected_file_is_scored_again_and_the_others_are_not(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100), "a.parquet", age=100)
    tiny.land(DAY, tiny.rows(100, start=100), "b.parquet", age=100)
    tiny.run()
    before, first = active(tiny), tiny.read()
    tiny.land(DAY, changed(tiny.rows(100), "x", {"k0000007": 9.9}), "a.parquet")
    assert metadata(tiny.run())["shards_reused"] == 1
    assert len(before & active(tiny)) == 1
    other = pc.not_equal(tiny.read().select(SCORES)["prob_class_1"], first["prob_class_1"])
    assert tiny.read().filter(other)["id"].to_pylist() == ["k0000007"]


def test_a_late_file_with_newer_rows_replaces_only_the_shards_that_lose_them(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100), "a.parquet", age=100)
    tiny.land(DAY, tiny.rows(100, start=100), "b.parquet", age=100)
    tiny.run()
    before = active(tiny)
    tiny.land(DAY, changed(tiny.rows(10), "x", {"k0000003": -9.9}), "late.parquet")
    assert metadata(tiny.run())["shards_reused"] == 1
    assert len(before & active(tiny)) == 1 and len(active(tiny)) == 3
    assert tiny.read().num_rows == 200
    assert tiny.published_day("validated_features").rows_quarantined == 10


def test_a_new_model_scores_every_shard_again(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100), "a.parquet")
    tiny.land(DAY, tiny.rows(100, start=100), "b.parquet")
    tiny.run()
    before = active(tiny)
    tiny.deliver("v2", seed=1)
    assert metadata(tiny.run())["shards_reused"] == 0
    assert not before & active(tiny) and len(active(tiny)) == 2
    assert set(tiny.read()["model_version"].to_pylist()) == {"v2"}


def test_other_batch_rows_are_no_reason_to_score_again(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run()
    tiny.spec["scoring"]["batch_rows"] = 64
    tiny.write_spec()
    assert metadata(tiny.run())["committed"] is False


def test_other_network_code_is_a_reason_to_score_again(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run()
    tiny.write_code(network=(tiny.folder / "network.py").read_text() + "\n# a deploy\n")
    figures = metadata(tiny.run())
    assert (figures["committed"], figures["shards_reused"]) == (True, 0)
    assert tiny.read().num_rows == 100


def test_finished_shards_of_a_run_that_died_before_its_commit_are_taken_over(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run()
    expected = tiny.read()
    shutil.rmtree(Path(predictions_table(tiny.pipeline).folder.uri, "_delta_log"))
    Path(tiny.state._folder.uri, f"dt={DAY}", "predictions.json").unlink()
    assert metadata(tiny.run())["shards_reused"] == 1
    assert tiny.read().equals(expected)


def test_seven_shards_give_the_scores_of_one(tiny: TinyProject) -> None:
    rows = changed(tiny.rows(1000), "x", {"k0000123": 666.0, "k0000900": 555.0})
    tiny.land(DAY, rows)
    tiny.run()
    expected, lost = tiny.read().select(SCORES), tiny.quarantined()
    assert expected.num_rows == 998
    for size, count in ((500, 2), (143, 7)):
        tiny.spec["scoring"]["rows_per_shard"] = size
        tiny.write_spec()
        tiny.run()
        assert len(active(tiny)) == count
        assert tiny.read().select(SCORES).equals(expected), f"{count} shards"
        assert tiny.quarantined() == lost


# a table that grows


def test_a_third_class_adds_a_column_and_older_days_read_with_nulls(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run()
    tiny.deliver("v2", outputs=3)
    tiny.land(NEXT_DAY, tiny.rows(64))
    tiny.run(NEXT_DAY)
    old, new = tiny.read(DAY), tiny.read(NEXT_DAY)
    assert old.column_names == new.column_names and "prob_class_2" in new.column_names
    assert old["prob_class_2"].null_count == 64 and new["prob_class_2"].null_count == 0
    assert set(old["model_version"].to_pylist()) == {"v1"}
    total = pc.add(pc.add(new["prob_class_0"], new["prob_class_1"]), new["prob_class_2"]).to_numpy()
    assert abs(total - 1).max() < 1e-6
    assert tiny.published_day("predictions", NEXT_DAY).shards[0].classes.keys() == {"0", "1", "2"}


def test_a_new_feature_adds_a_column_and_older_days_read_with_nulls(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run()
    tiny.write_code(SCHEMA + "    z: float\n")
    tiny.spec["features"]["numeric"].append("z")
    tiny.deliver("v2")
    rows = tiny.rows(64)
    tiny.land(NEXT_DAY, rows.append_column("z", pa.array([0.25] * 64)))
    tiny.run(NEXT_DAY)
    old, new = tiny.read(DAY, "validated_features"), tiny.read(NEXT_DAY, "validated_features")
    assert old["z"].null_count == 64 and new["z"].to_pylist() == [0.25] * 64
    assert tiny.read(NEXT_DAY).num_rows == 64


def test_a_retyped_column_is_refused_by_name_and_the_day_stays(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run()
    before = tiny.read(DAY, "validated_features")
    tiny.write_code(SCHEMA.replace("n: int", "n: float"))
    rows = tiny.rows(64)
    kept = tiny.quarantined()
    values = changed(rows.set_column(3, "n", rows["n"].cast(pa.float64())), "x", {"k0000003": 5000.0})
    tiny.land(DAY, values)
    result = tiny.run(raise_on_error=False)
    message = error_of(result)
    assert tiny.quarantined() == kept, "the quarantine is not of another version than the table"
    assert "tables/validated_features: column n is int64 in the table and would become double" in message
    assert "new output root" in message
    assert tiny.read(DAY, "validated_features").equals(before)


def test_a_regression_in_the_place_of_a_classification_is_refused_by_name(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run()
    before = tiny.read()
    tiny.deliver("v2", outputs=1, task="regression")
    result = tiny.run(raise_on_error=False)
    assert "column prediction is int64 in the table and would become double" in error_of(result)
    assert tiny.read().equals(before)


def test_a_regression_publishes_its_values(tiny: TinyProject) -> None:
    tiny.deliver("v1", outputs=1, task="regression")
    tiny.land(DAY, changed(tiny.rows(100), "x", {"k0000005": 555.0}))
    result = tiny.run()
    scored = tiny.read()
    assert scored.column_names == ["id", "prediction", "model_version", "scored_at", "dt"]
    assert scored.schema.field("prediction").type == pa.float64() and scored.num_rows == 99
    assert tiny.quarantined() == {("k0000005", "score", "output_is_finite", "")}
    shard = tiny.published_day("predictions").shards[0]
    assert shard.histogram == () and shard.classes == {}
    assert metadata(result)["mean_prediction"] == pytest.approx(pc.mean(scored["prediction"]).as_py(), rel=1e-9)


# rows without a score


def test_rows_that_the_model_cannot_score_are_quarantined_with_their_reason(tiny: TinyProject) -> None:
    bad = {"k0000010": 666.0, "k0000011": 555.0, "k0000099": 666.0}
    tiny.land(DAY, tiny.rows(100))
    tiny.run()
    whole = tiny.read().select(SCORES)
    tiny.land(DAY, changed(tiny.rows(100), "x", bad))
    result = tiny.run()
    assert all(checks(result).values())
    rows = {row["id"]: row for row in tiny.read(DAY, "quarantine").to_pylist()}
    assert {(key, row["stage"], row["rule"]) for key, row in rows.items()} == {
        ("k0000010", "score", "network_raises"),
        ("k0000011", "score", "output_is_finite"),
        ("k0000099", "score", "network_raises"),
    }
    assert rows["k0000010"]["value"] == "ValueError: the number of the beast"
    assert (rows["k0000010"]["source_file"], rows["k0000010"]["row_number"]) == (f"dt={DAY}/a.parquet", 11)
    assert '"x": 666.0' in rows["k0000010"]["raw"]
    kept = [key not in bad for key in whole["id"].to_pylist()]
    assert tiny.read().select(SCORES).equals(whole.filter(pa.array(kept))), "the others as without them"
    stats = tiny.published_day("predictions")
    assert (stats.rows_in, stats.rows, stats.rows_quarantined) == (100, 97, 3)
    assert stats.shards[0].quarantined == {"score": {"network_raises": 2, "output_is_finite": 1}}
    features = tiny.published_day("validated_features")
    assert features.rows_in == stats.rows + stats.rows_quarantined + features.rows_quarantined


def test_both_steps_keep_their_own_part_of_the_quarantine(tiny: TinyProject) -> None:
    tiny.land(DAY, changed(changed(tiny.rows(100), "x", {"k0000010": 666.0}), "n", {"k0000020": -1}))
    tiny.run()
    stages = {(key, stage) for key, stage, _, _ in tiny.quarantined()}
    assert stages == {("k0000010", "score"), ("k0000020", "rule")}
    tiny.land(DAY, changed(tiny.rows(100), "x", {"k0000010": 666.0}))
    tiny.run(steps=["raw_input", "validated_features"])
    assert {(key, stage) for key, stage, _, _ in tiny.quarantined()} == {("k0000010", "score")}
    tiny.land(DAY, tiny.rows(100))
    tiny.run()
    assert tiny.quarantined() == set()


def test_a_model_that_scores_no_row_publishes_nothing(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(50))
    tiny.run()
    before = tiny.read()
    tiny.land(DAY, changed(tiny.rows(50), "x", dict.fromkeys(before["id"].to_pylist(), 555.0)))
    result = tiny.run(raise_on_error=False)
    assert checks(result)["predictions/rows_are_conserved"]
    assert not checks(result)["predictions/scores_are_probabilities"]
    assert "the model scores no row at all" in error_of(result)
    assert tiny.read().equals(before)


def test_a_network_that_raises_for_every_row_is_an_error_that_names_it(tiny: TinyProject) -> None:
    tiny.land(DAY, changed(tiny.rows(2000), "x", {f"k{n:07d}": 666.0 for n in range(2000)}))
    result = tiny.run(raise_on_error=False)
    assert "raises for more than 100 rows" in error_of(result) and "the number of the beast" in error_of(result)
    assert tiny.state.published_day("predictions", DAY) is None
    with pytest.raises(NotPublishedError):
        tiny.read(DAY)


def test_unknown_categories_are_scored_and_counted(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    result = tiny.run()
    mauve = sum(value == "mauve" for value in tiny.rows(100)["c"].to_pylist())
    assert tiny.published_day("predictions").shards[0].unknown == {"c": {"mauve": mauve}}
    (event,) = result.asset_materializations_for_node(f"{tiny.name}__predictions")
    table = event.metadata["unknown_categories"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data for record in table.records] == [{"column": "c", "value": "mauve", "rows": mauve}]


# what others do meanwhile


@pytest.mark.parametrize("damage", ["gone", "truncated"])
@pytest.mark.parametrize("table", ["validated_features", "predictions", "quarantine"])
def test_a_committed_file_that_somebody_has_damaged_is_put_right_by_the_next_run(
    tiny: TinyProject, table: str, damage: str
) -> None:
    tiny.land(DAY, changed(tiny.rows(100), "n", {"k0000003": -1}))
    tiny.run()
    names = [name for name in TABLES if name != "decisions"]
    before = {name: tiny.read(DAY, name) for name in names}
    step = tiny.published_day("validated_features" if table == "quarantine" else table)
    part = step.quarantine if table == "quarantine" else step.table
    file = Path(TABLES[table](tiny.pipeline).folder.uri, part.files[0])
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-100])
    assert all(checks(tiny.run()).values())
    for name in names:
        columns = [name for name in before[name].column_names if name != "scored_at"]
        assert tiny.read(DAY, name).select(columns).equals(before[name].select(columns))
    settled = tiny.published_day("validated_features"), tiny.published_day("predictions")
    tiny.run()
    assert (tiny.published_day("validated_features"), tiny.published_day("predictions")) == settled


# checks that fail through the whole pipeline: a shard of the right name whose footer confesses


def forge(tiny: TinyProject, **confession: int) -> None:
    """Plant a finished shard of the day's features and the model in force, as a buggy engine would have left it."""
    step = DayStep(tiny.pipeline, DAY, "predictions")
    (features,) = tiny.published_day("validated_features").shards
    sha256, code = tiny.state.model().sha256, tiny.pipeline.scoring_code
    digest = shards.digest("predictions", features.digest, sha256, code, "cpu")
    stats = ShardStats(
        digest=digest, source=features.digest, run_id="forger", rows_in=features.rows, rows=features.rows
    )
    table = pa.table({"id": tiny.rows(features.rows)["id"], "prediction": pa.array([7] * features.rows, pa.int64())})
    with shards.writing(step.table.table.folder, table.schema) as writer:
        for batch in table.to_batches():
            writer.write(batch)
        writer.finish(f"dt={DAY}/", stats.model_copy(update=confession))


@pytest.mark.parametrize(
    ("confession", "check", "says"),
    [
        ({"not_probabilities": 5}, "scores_are_probabilities", "5 of 120 scored rows are not probabilities"),
        ({"missing_identity": 1}, "rows_are_conserved", "rows are lost or doubled in 1 shards"),
        ({"rows_in": 121}, "rows_are_conserved", "rows are lost or doubled in 1 shards"),
    ],
)
def test_a_check_that_fails_is_recorded_with_its_day_and_the_last_good_version_stands(
    tiny: TinyProject, confession: dict[str, int], check: str, says: str
) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run()
    before, stats = tiny.read(), tiny.published_day("predictions")
    tiny.land(DAY, tiny.rows(120))
    tiny.run(steps=["raw_input", "validated_features"])
    forge(tiny, **confession)
    instance = dg.DagsterInstance.ephemeral()
    result = tiny.run(instance=instance, raise_on_error=False)
    names = {"predictions/rows_are_conserved", "predictions/scores_are_probabilities"}
    assert {name for name in names if not checks(result)[name]} == {f"predictions/{check}"}, "all are recorded"
    assert says in error_of(result) and check in error_of(result)
    key = dg.AssetCheckKey(dg.AssetKey([tiny.name, "predictions"]), check)
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
    assert [(record.status.value, record.partition) for record in history] == [("FAILED", DAY)]
    assert not result.asset_materializations_for_node(f"{tiny.name}__predictions")
    assert tiny.read().equals(before) and tiny.published_day("predictions") == stats


def test_a_shard_with_other_rows_than_its_footer_says_is_not_taken_over(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    forge(tiny, rows=99)
    assert metadata(tiny.run(steps=["predictions"]))["shards_reused"] == 0
    assert tiny.read()["prediction"].to_pylist() != [7] * 100


# what an operator asks


def test_the_materialisation_says_what_an_operator_asks(tiny: TinyProject) -> None:
    tiny.land(DAY, changed(tiny.rows(100), "x", {"k0000010": 666.0}))
    result = tiny.run()
    figures = metadata(result)
    assert (figures["rows_in"], figures["rows_scored"], figures["rows_quarantined"]) == (100, 99, 1)
    assert figures["dagster/partition_row_count"] == 99
    assert (figures["model_version"], figures["model_sha256"]) == ("v1", tiny.state.model().sha256)
    assert (figures["device"], figures["files"], figures["committed"]) == ("cpu", 1, True)
    assert figures["dagster/size_bytes"] == sum(
        Path(predictions_table(tiny.pipeline).folder.uri, path).stat().st_size for path in active(tiny)
    )
    assert figures["fingerprint"] == tiny.state.day_input(DAY).fingerprint
    for name in ("read", "score", "write", "commit", "load_model"):
        assert figures[f"seconds_{name}"] >= 0  # type: ignore[operator]
    assert figures["rows_per_second"] > 0 and figures["peak_memory_bytes"] > 1e6  # type: ignore[operator]
    assert "preview" not in figures and "svg" in str(figures["scores"])
    scored = tiny.read()
    assert figures["mean_prob_class_1"] == pytest.approx(pc.mean(scored["prob_class_1"]).as_py())
    shard = tiny.published_day("predictions").shards[0]
    assert sum(shard.histogram) == 99 and sum(shard.classes.values()) == 99
    assert shard.classes["1"] == pc.sum(scored["prediction"]).as_py()


def test_no_row_is_in_an_event_unless_the_spec_asks_for_some(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(20))
    keys = set(tiny.rows(20)["id"].to_pylist())
    for asked in (0, 2):
        tiny.spec["preview_rows"] = asked
        tiny.write_spec()
        with dg.DagsterInstance.ephemeral() as instance:
            result = tiny.run(instance=instance)
            stored = "".join(serialize_value(entry) for entry in instance.all_logs(result.run_id))
        assert {key for key in keys if key in stored} == set(sorted(keys)[:asked]), "also of a day that is unchanged"
        if asked:
            shown = {
                str(e.asset_key.path[-1]): e.materialization.metadata for e in result.get_asset_materialization_events()
            }
            [first, _] = shown["predictions"]["preview"].records  # type: ignore[union-attr]
            assert first.data["id"] == "k0000000" and first.data["prob_class_1"] == round(first.data["prob_class_1"], 4)
            assert len(shown["validated_features"]["preview"].records) == 2  # type: ignore[union-attr]


def test_every_commit_names_run_input_model_and_code(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    result = tiny.run()
    delta = predictions_table(tiny.pipeline).load()
    assert delta is not None
    commit = delta.history(1)[0]
    assert {name: commit[name] for name in ("run_id", "model_version", "model_sha256", "code_version")} == {
        "run_id": result.run_id,
        "model_version": "v1",
        "model_sha256": tiny.state.model().sha256,
        "code_version": tiny.pipeline.scoring_code,
    }
    assert commit["input_fingerprint"] == tiny.state.day_input(DAY).fingerprint
    assert (commit["rows_in"], commit["rows_scored"], commit["rows_quarantined"]) == ("100", "100", "0")


def test_scored_at_is_the_start_of_the_run(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    with dg.DagsterInstance.ephemeral() as instance:
        result = tiny.run(instance=instance)
        record = instance.get_run_record_by_id(result.run_id)
    assert record is not None and record.start_time
    (scored_at,) = set(tiny.read()["scored_at"].to_pylist())
    assert scored_at.timestamp() == pytest.approx(record.start_time, abs=1e-3)


def test_text_columns_of_one_value_are_stored_once(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(1000))
    tiny.run()
    (path,) = active(tiny)
    group = pq.read_metadata(Path(predictions_table(tiny.pipeline).folder.uri, path)).row_group(0)
    encodings = {group.column(i).path_in_schema: group.column(i).encodings for i in range(group.num_columns)}
    assert "RLE_DICTIONARY" in encodings["model_version"] and "RLE_DICTIONARY" not in encodings["id"]
