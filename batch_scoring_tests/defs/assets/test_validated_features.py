"""Validation of a day through Dagster: which rows are accepted, what a re-run costs, what a failed check leaves."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from batch_scoring.daily.publish import DayStep
from batch_scoring.daily.tables import features_table
from batch_scoring.daily.validate import prepare
from batch_scoring.ingest.key_index import row_identity
from batch_scoring.storage.state import ShardStats
from batch_scoring_tests.tiny import (
    DAY,
    NEXT_DAY,
    SCHEMA,
    TinyProject,
    checks,
    error_of,
    reference_rows,
    run_of_test,
)

VALIDATE = ["raw_input", "validated_features"]


def rows_of(**columns: list[object]) -> pa.Table:
    count = len(columns["id"])
    good = {"x": [1.0] * count, "y": [1.0] * count, "n": [1] * count, "c": ["red"] * count}
    return pa.table({"id": columns["id"], **good, **columns})


def accepted(tiny: TinyProject) -> dict[str, float]:
    """The accepted rows' x by key."""
    rows = tiny.read(table="validated_features")
    assert rows.num_rows == len(set(rows["id"].to_pylist()))
    return dict(zip(rows["id"].to_pylist(), rows["x"].to_pylist(), strict=True))


def duplicates(tiny: TinyProject) -> list[tuple[str, int]]:
    """File and row number of the rows that were quarantined as duplicates."""
    rows = tiny.read(table="quarantine").to_pylist()
    assert {(row["stage"], row["rule"], row["column"]) for row in rows} <= {("duplicate", "key_is_unique", "id")}
    return sorted((row["source_file"].rpartition("/")[2], row["row_number"]) for row in rows)


def shards_by_file(tiny: TinyProject) -> dict[str, ShardStats]:
    return {
        shard.source.split("#")[0].split("/")[-1]: shard for shard in tiny.published_day("validated_features").shards
    }


# which rows


def test_features_hold_the_key_the_features_and_where_each_row_came_from(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(3).append_column("extra", pa.array(["?"] * 3)))
    tiny.run(steps=VALIDATE)
    rows = tiny.read(table="validated_features")
    assert rows.column_names == ["id", "x", "y", "n", "c", "source_file", "row_number", "dt"]
    assert rows["row_number"].to_pylist() == [1, 2, 3]
    assert set(rows["source_file"].to_pylist()) == {f"dt={DAY}/a.parquet"}
    assert rows.select(["id", "x", "y", "n", "c"]).equals(tiny.rows(3))


def test_of_equal_keys_in_a_file_the_first_row_wins(tiny: TinyProject) -> None:
    tiny.land(DAY, rows_of(id=["a", "b", "a", "b", "a"], x=[1.0, 2.0, 3.0, 4.0, 5.0]))
    assert all(checks(tiny.run(steps=VALIDATE)).values())
    assert accepted(tiny) == {"a": 1.0, "b": 2.0}
    assert duplicates(tiny) == [("a.parquet", 3), ("a.parquet", 4), ("a.parquet", 5)]


@pytest.mark.parametrize("newest", ["0.parquet", "z.parquet"])
def test_of_equal_keys_in_two_files_the_newest_files_row_wins_whatever_its_name(tiny: TinyProject, newest: str) -> None:
    tiny.land(DAY, rows_of(id=["a", "b"], x=[1.0, 2.0]), "m.parquet", age=100)
    tiny.land(DAY, rows_of(id=["b", "c"], x=[20.0, 30.0]), newest)
    tiny.run(steps=VALIDATE)
    assert accepted(tiny) == {"a": 1.0, "b": 20.0, "c": 30.0}
    assert duplicates(tiny) == [("m.parquet", 2)]


def test_of_equal_keys_in_files_of_one_instant_the_later_path_wins(tiny: TinyProject) -> None:
    for name, x in (("b.parquet", 2.0), ("a.parquet", 1.0), ("c.parquet", 3.0)):
        tiny.land(DAY, rows_of(id=["k", name], x=[x, x]), name)
        os.utime(Path(tiny.pipeline.landing.uri, f"dt={DAY}", name), (1_700_000_000, 1_700_000_000))
    tiny.run(steps=VALIDATE)
    assert accepted(tiny)["k"] == 3.0
    assert duplicates(tiny) == [("a.parquet", 1), ("b.parquet", 1)]


def test_only_accepted_rows_take_a_key(tiny: TinyProject) -> None:
    tiny.land(DAY, rows_of(id=["a"], x=[1.0]), "old.parquet", age=100)
    tiny.land(DAY, rows_of(id=["a", "a"], x=[9999.0, 2.0]), "new.parquet")
    tiny.run(steps=VALIDATE)
    assert accepted(tiny) == {"a": 2.0}
    tiny.land(DAY, rows_of(id=["a", "b"], x=[9999.0, 2.0]), "new.parquet")
    tiny.run(steps=VALIDATE)
    assert accepted(tiny) == {"a": 1.0, "b": 2.0}


def test_equal_keys_are_found_across_the_shards_of_a_file(tiny: TinyProject) -> None:
    tiny.spec["scoring"]["rows_per_shard"] = 3
    tiny.write_spec()
    tiny.land(DAY, rows_of(id=list("abcdefga"), x=[float(n) for n in range(8)]))
    tiny.run(steps=VALIDATE)
    assert accepted(tiny) == {key: float(n) for n, key in enumerate("abcdefg")}
    assert duplicates(tiny) == [("a.parquet", 8)]
    assert [shard.rows_in for shard in tiny.published_day("validated_features").shards] == [3, 3, 2]


def test_integer_keys_are_keys_too(tiny: TinyProject) -> None:
    tiny.write_code(SCHEMA.replace("id: str", "id: int"))
    tiny.land(DAY, rows_of(id=[1, 2, 1], x=[1.0, 2.0, 3.0]))
    tiny.run(steps=VALIDATE)
    assert accepted(tiny) == {1: 1.0, 2: 2.0}  # type: ignore[comparison-overlap]
    assert tiny.read(table="quarantine")["id"].to_pylist() == ["1"]


@pytest.mark.parametrize("rows_per_shard", [1_000_000, 7])
def test_every_input_row_is_accepted_or_quarantined_exactly_once(tiny: TinyProject, rows_per_shard: int) -> None:
    tiny.spec["scoring"]["rows_per_shard"] = rows_per_shard
    tiny.spec["input"]["csv"] = {"newlines": True}
    tiny.write_spec()
    lines = []
    for n in range(60):
        x, count, extra = n, n % 5, ",too many" if n % 11 == 3 else ""
        x = "abc" if n % 7 == 2 else 5000 if n % 13 == 4 else n  # type: ignore[assignment]
        lines.append(f'"k{n % 50}\n{n % 50}",{x},,{count if n % 17 else -1},"r, ""{n}"""{extra}')
    tiny.land(DAY, "\n".join(["id,x,y,n,c", *lines, ""]).encode(), "a.csv", age=50)
    tiny.land(DAY, tiny.rows(40), "b.parquet", age=20)
    tiny.land(DAY, tiny.rows(40, start=20), "c.parquet")
    result = tiny.run()
    assert all(checks(result).values())
    kept, rejected, scored = (tiny.read(table=name) for name in ("validated_features", "quarantine", "predictions"))

    def places(rows: pa.Table) -> list[tuple[str, int]]:
        return list(zip(rows["source_file"].to_pylist(), rows["row_number"].to_pylist(), strict=True))

    expected = [
        (f"dt={DAY}/{name}", n + 1)
        for name, count in (("a.csv", 60), ("b.parquet", 40), ("c.parquet", 40))
        for n in range(count)
    ]
    assert sorted(places(kept) + places(rejected)) == sorted(expected)
    assert scored["id"].to_pylist() == kept["id"].to_pylist()
    stats = tiny.published_day("validated_features")
    assert (stats.rows_in, stats.rows, stats.rows_quarantined) == (140, kept.num_rows, rejected.num_rows)
    assert {row["stage"] for row in rejected.to_pylist()} == {"read", "schema", "rule", "duplicate"}
    for row in rejected.to_pylist():
        assert json.loads(row["raw"])


# what a re-run costs


@pytest.mark.parametrize("name", ["0-sorts-first.parquet", "z-sorts-last.parquet"])
def test_adding_a_file_validates_that_file_alone(tiny: TinyProject, name: str) -> None:
    tiny.land(DAY, tiny.rows(50), "a.parquet", age=100)
    tiny.land(DAY, tiny.rows(50, start=50), "b.parquet", age=90)
    first = tiny.run(steps=VALIDATE)
    before = shards_by_file(tiny), set(tiny.published_day("validated_features").table.files)
    tiny.land(DAY, tiny.rows(50, start=100), name)
    second = tiny.run(steps=VALIDATE)
    after = shards_by_file(tiny)
    assert {file: shard.run_id for file, shard in after.items()} == {
        "a.parquet": first.run_id,
        "b.parquet": first.run_id,
        name: second.run_id,
    }
    assert {file: after[file] for file in before[0]} == before[0]
    assert before[1] < set(tiny.published_day("validated_features").table.files)


def test_a_late_file_that_takes_a_key_validates_the_file_that_loses_it_once_more(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(50), "a.parquet", age=100)
    tiny.land(DAY, tiny.rows(50, start=50), "b.parquet", age=90)
    first = tiny.run(steps=VALIDATE)
    tiny.land(DAY, tiny.rows(1), "c.parquet")
    second = tiny.run(steps=VALIDATE)
    assert {file: shard.run_id for file, shard in shards_by_file(tiny).items()} == {
        "a.parquet": second.run_id,
        "b.parquet": first.run_id,
        "c.parquet": second.run_id,
    }
    assert duplicates(tiny) == [("a.parquet", 1)]
    Path(tiny.pipeline.landing.uri, f"dt={DAY}", "c.parquet").unlink()
    tiny.run(steps=VALIDATE)
    assert shards_by_file(tiny)["a.parquet"].run_id == first.run_id, "the shard of then is the shard of now"
    assert duplicates(tiny) == []
    assert len(accepted(tiny)) == 100


def test_other_rules_validate_every_file_again(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(50))
    first = tiny.run(steps=VALIDATE)
    tiny.write_code(SCHEMA.replace("ge=-1000", "ge=0"))
    second = tiny.run(steps=VALIDATE)
    assert second.run_id != first.run_id
    assert {shard.run_id for shard in shards_by_file(tiny).values()} == {second.run_id}
    assert min(accepted(tiny).values()) >= 0


def without_commit(tiny: TinyProject) -> str:
    """Validate the day and leave its shards as a run leaves them that dies before its commit. Returns the run's id."""
    result = tiny.run(steps=["raw_input"])
    prepare(DayStep(tiny.pipeline, DAY, "validated_features"), tiny.state.day_input(DAY), run_of_test())
    assert features_table(tiny.pipeline).load() is None
    return result.run_id


def test_shards_of_a_run_that_died_are_committed_with_their_row_counts(tiny: TinyProject) -> None:
    tiny.land(DAY, rows_of(id=["a", "b", "c", "a"], x=[1.0, 5000.0, 3.0, 4.0]))
    without_commit(tiny)
    tiny.run(steps=VALIDATE)
    assert {shard.run_id for shard in shards_by_file(tiny).values()} == {"a-test"}
    step = DayStep(tiny.pipeline, DAY, "validated_features")
    for part, counts in ((step.table, [2]), (step.quarantine, [1, 1])):
        table = part.table.load()
        assert table is not None
        assert pa.table(table.get_add_actions(flatten=True))["num_records"].to_pylist() == counts


def test_a_shard_whose_quarantine_lost_a_row_is_validated_again(tiny: TinyProject) -> None:
    tiny.land(DAY, rows_of(id=["a", "b", "c"], x=[1.0, 5000.0, 6000.0]))
    without_commit(tiny)
    step = DayStep(tiny.pipeline, DAY, "validated_features")
    folder = step.quarantine.table.folder
    [file] = [file for file in folder.list() if file.path.endswith(".parquet")]
    rewrite(Path(folder.uri, file.path), lambda rows: rows.slice(0, 1), lambda stats: {"rows": 1, "rows_in": 1})
    result = tiny.run(steps=VALIDATE)
    assert all(checks(result).values())
    assert {shard.run_id for shard in shards_by_file(tiny).values()} == {result.run_id}
    assert tiny.read(table="quarantine")["id"].to_pylist() == ["b", "c"]


# what a failed check leaves


def rewrite(
    file: Path, change: Callable[[pa.Table], pa.Table], stats: Callable[[ShardStats], dict[str, object]]
) -> None:
    """Put other rows into a shard, under another attempt, with an account that is changed alike."""
    folder = file.parent
    metadata = pq.read_metadata(file).metadata
    old = ShardStats.model_validate_json(metadata[b"batch_scoring"])
    rows = change(pq.read_table(file, partitioning=None))
    file.unlink()
    with pq.ParquetWriter(folder / f"{old.digest}-0badf11e.parquet", rows.schema) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata({"batch_scoring": old.model_copy(update=stats(old)).model_dump_json()})


Forgery = tuple[Callable[[pa.Table], pa.Table], Callable[[ShardStats], dict[str, object]], str]

FORGERIES: dict[str, Forgery] = {
    "a lost row": (lambda rows: rows.slice(1), lambda old: {"rows": old.rows - 1}, "rows_are_conserved"),
    "a lost row that was never there": (
        lambda rows: rows.slice(1),
        lambda old: {"rows": old.rows - 1, "rows_in": old.rows_in - 1},
        "rows_are_conserved",
    ),
    "a row in place of another": (
        lambda rows: rows,
        lambda old: {"missing_identity": (row_identity_of(3) - row_identity_of(2)) % 2**64},
        "rows_are_conserved",
    ),
    "a doubled row": (
        lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]),
        lambda old: {"rows": old.rows + 1},
        "rows_are_conserved",
    ),
    "a doubled key": (
        lambda rows: rows.set_column(0, "id", pa.array([rows["id"][0].as_py()] * 2 + rows["id"].to_pylist()[2:])),
        lambda old: {},
        "keys_are_unique",
    ),
}


def row_identity_of(row: int) -> int:
    return row_identity(np.array([row]))


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_shard_fails_its_check_is_recorded_with_its_day_and_publishes_nothing(
    tiny: TinyProject, forgery: str
) -> None:
    change, stats, check = FORGERIES[forgery]
    tiny.land(DAY, tiny.rows(20), "a.parquet", age=100)
    tiny.run()
    good = {name: tiny.read(table=name) for name in ("validated_features", "predictions")}
    settled = tiny.published_day("validated_features"), tiny.published_day("predictions")
    # a zombie, a run of another input of this day, has left the shard of a file that is not in the day yet
    tiny.land(DAY, tiny.rows(10, start=100), "b.parquet")
    late = Path(tiny.pipeline.landing.uri, f"dt={DAY}", "b.parquet")
    tiny.run(steps=["raw_input"])
    prepare(DayStep(tiny.pipeline, DAY, "validated_features"), tiny.state.day_input(DAY), run_of_test())
    folder = Path(features_table(tiny.pipeline).folder.uri)
    committed = set(settled[0].table.files)
    [orphan] = [file for file in folder.rglob("dt=*/*.parquet") if str(file.relative_to(folder)) not in committed]
    rewrite(orphan, change, stats)

    with dg.DagsterInstance.ephemeral() as instance:
        result = tiny.run(instance=instance, raise_on_error=False)
        key = dg.AssetCheckKey(dg.AssetKey([tiny.name, "validated_features"]), check)
        [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
        assert (record.status.value, record.partition) == ("FAILED", DAY)
    failed = {name for name, passed in checks(result).items() if not passed}
    also = {"validated_features/keys_are_unique"} if forgery == "a doubled row" else set()
    assert failed == {f"validated_features/{check}"} | also
    message = error_of(result)
    assert message.startswith(f"{check}: ")
    digest = orphan.name.split("-")[0]
    assert f"{digest}-*.parquet (of dt={DAY}/b.parquet): remove it from tables/validated_features/dt={DAY}" in message
    assert "\n" not in message
    assert all(tiny.read(table=name).equals(rows) for name, rows in good.items())
    assert (tiny.published_day("validated_features"), tiny.published_day("predictions")) == settled
    assert {event.asset_key.path[-1] for event in result.get_asset_materialization_events()} == {"model", "raw_input"}

    [forged] = [file for file in folder.rglob("*-0badf11e.parquet")]  # what the message asks for
    forged.unlink()
    assert late.exists()
    assert all(checks(tiny.run()).values())
    assert tiny.read().num_rows == 30


def test_a_forged_shard_whose_rows_are_not_as_many_as_its_footer_says_is_no_shard(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(20))
    without_commit(tiny)
    [orphan] = Path(features_table(tiny.pipeline).folder.uri).rglob("*.parquet")
    rewrite(orphan, lambda rows: rows.slice(1), lambda old: {})
    assert all(checks(tiny.run()).values())
    assert tiny.read().num_rows == 20


def test_a_day_of_which_nothing_survives_is_an_error_and_the_last_good_version_stays(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(20))
    tiny.run()
    good, settled = tiny.read(), tiny.published_day("predictions")
    tiny.land(DAY, rows_of(id=["a", "b", "c"], x=[5000.0, 5000.0, -5000.0]))
    with dg.DagsterInstance.ephemeral() as instance:
        result = tiny.run(instance=instance, raise_on_error=False)
        key = dg.AssetCheckKey(dg.AssetKey([tiny.name, "validated_features"]), "some_rows_are_accepted")
        [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
        assert (record.status.value, record.partition) == ("FAILED", DAY)
    assert error_of(result) == (
        "some_rows_are_accepted: 0 of 3 rows are accepted; reasons: x: less_than_or_equal_to(1000) (2 rows), "
        "x: greater_than_or_equal_to(-1000) (1 row); upload corrected files, or correct the schema; "
        "batch-scoring doctor shows values of the newest file"
    )
    assert tiny.read().equals(good)
    assert tiny.published_day("predictions") == settled
    assert tiny.read(table="validated_features").num_rows == 20
    assert tiny.read(table="quarantine").num_rows == 0


def test_a_schema_that_does_not_import_stops_the_day_and_is_named(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    tiny.write_code(schema=f"from math import pandora\n{(tiny.folder / 'schema.py').read_text()}")
    message = error_of(tiny.run(raise_on_error=False))
    assert f"{tiny.name}: schema:Rows cannot be loaded from {tiny.folder}: ImportError" in message
    assert tiny.state.published_day("validated_features", DAY) is None


@contextlib.contextmanager
def watched() -> Iterator[Callable[[], int]]:
    """What Arrow holds beyond what it held, at most, as seen every millisecond: no tracer of Python sees it."""
    ended, before, seen = threading.Event(), pa.total_allocated_bytes(), [0]

    def look() -> None:
        while not ended.wait(0.001):
            seen[0] = max(seen[0], pa.total_allocated_bytes() - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: seen[0]
    finally:
        ended.set()
        thread.join()


def test_a_text_that_all_rows_share_is_never_written_out_for_all_of_them(tiny: TinyProject) -> None:
    rows = 1_000
    word = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), ["x" * 300_000])
    table = tiny.rows(rows)
    tiny.land(DAY, table.set_column(table.schema.get_field_index("c"), "c", word), "a.parquet")
    file = Path(tiny.pipeline.landing.uri, f"dt={DAY}", "a.parquet")
    assert file.stat().st_size < 100_000
    with watched() as most:
        result = tiny.run()
    assert result.success and tiny.published_day("validated_features").rows == rows
    assert most() < 150_000_000  # written out they are 300 MB
    [(shown, count)] = tiny.published_day("validated_features").shards[0].categories["c"].items()
    assert (shown, count) == ("x" * 10_000 + "… (300000 characters)", rows)
    assert max(len(event.description or "") for event in result.get_asset_check_evaluations()) < 2_000


# attributes

ATTRIBUTES = """
    region: str = pa.Field(isin=['north', 'south'])
    consent: bool
    joined: pd.Timestamp
"""


def with_attributes(tiny: TinyProject) -> None:
    tiny.write_code(schema=f"import pandas as pd\n{SCHEMA}{ATTRIBUTES}")
    tiny.spec["input"]["attributes"] = ["region", "consent", "joined"]
    tiny.write_spec()


def rows_with_attributes(tiny: TinyProject, count: int) -> pa.Table:
    joined = pa.array([f"2024-01-{1 + number % 28:02}" for number in range(count)]).cast(pa.timestamp("us"))
    attributes = {
        "region": ["north", "south"] * (count // 2),
        "consent": [number % 3 > 0 for number in range(count)],
        "joined": joined,
    }
    return pa.table({**{name: tiny.rows(count)[name] for name in tiny.rows(count).column_names}, **attributes})


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_attributes_are_validated_and_kept_beside_the_features(tiny: TinyProject, form: str) -> None:
    with_attributes(tiny)
    rows = rows_with_attributes(tiny, 20)
    regions = ["west", *rows["region"].to_pylist()[1:]]
    landed = rows.set_column(5, "region", pa.array(regions))
    if form == "csv":
        sink = pa.BufferOutputStream()
        pa.csv.write_csv(landed, sink)
        tiny.land(DAY, sink.getvalue().to_pybytes(), "a.csv")
    else:
        tiny.land(DAY, landed)
    tiny.run()
    assert tiny.quarantined() == {("k0000000", "rule", "isin(['north', 'south'])", "region")}
    kept = tiny.read(table="validated_features")
    assert kept.column_names[:8] == ["id", "x", "y", "n", "c", "region", "consent", "joined"]
    for name in ("region", "consent"):
        assert kept[name].to_pylist() == rows[name].to_pylist()[1:]
    assert [str(day)[:10] for day in kept["joined"].to_pylist()] == [f"2024-01-{n:02}" for n in range(2, 21)]
    assert set(tiny.read().column_names).isdisjoint({"region", "consent", "joined"}), "the model knows none of them"


def test_scores_with_attributes_are_those_without(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(20))
    tiny.run()
    before = tiny.read().drop_columns(["scored_at"])
    with_attributes(tiny)
    tiny.land(DAY, rows_with_attributes(tiny, 20))
    tiny.run()
    assert tiny.read().drop_columns(["scored_at"]).equals(before)


def test_attributes_are_new_columns_of_the_table_and_null_in_the_days_before(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(20))
    tiny.run()
    with_attributes(tiny)
    tiny.land(NEXT_DAY, rows_with_attributes(tiny, 20))
    tiny.run(NEXT_DAY)
    before, after = tiny.read(table="validated_features"), tiny.read(NEXT_DAY, "validated_features")
    assert before.schema == after.schema
    assert before["region"].null_count == before["joined"].null_count == 20
    assert before.select(["id", "x", "y", "n", "c"]).equals(tiny.rows(20))
    assert after["region"].to_pylist() == ["north", "south"] * 10


def test_attributes_are_in_no_sample_no_statistics_and_no_preview(tiny: TinyProject) -> None:
    with_attributes(tiny)
    tiny.deliver("v2", reference=reference_rows())
    tiny.spec["preview_rows"] = 3
    tiny.write_spec()
    tiny.land(DAY, rows_with_attributes(tiny, 60))
    result = tiny.run()
    sample = pq.read_schema(Path(tiny.pipeline.output.uri, f"state/dt={DAY}/sample.parquet"))
    assert {"x", "c", "prob_class_1"} <= set(sample.names)
    said = tiny.published_day("validated_features").model_dump_json()
    metadata = materialized(result)
    preview = metadata["preview"].value.records[0].data
    assert {"x", "c"} <= preview.keys()
    for seen in (set(sample.names), said, preview.keys()):
        assert not [name for name in ("region", "consent", "joined", "north") if name in seen]


def test_attributes_are_in_the_catalog(tiny: TinyProject) -> None:
    with_attributes(tiny)
    key = dg.AssetKey([tiny.name, "validated_features"])
    asset = tiny.definitions.resolve_asset_graph().get(key)
    columns = {column.name: column.type for column in asset.metadata["dagster/column_schema"].columns}
    assert [name for name, kind in columns.items() if kind == "attribute"] == ["region", "consent", "joined"]
    assert "which it will not see" in (asset.description or "")


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dg.MetadataValue]:
    """Metadata of the features that a run has materialised."""
    [found] = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key and event.asset_key.path[-1] == "validated_features"
    ]
    return dict(found.metadata)
