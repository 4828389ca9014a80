"""Predictions of a day in many steps: the same rows, checks and commit as in one, and every fault is told by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from batch_scoring.config.spec import Prices
from batch_scoring.daily.publish import DayStep
from batch_scoring.monitoring.checks.prediction_checks import CHECKS
from batch_scoring.monitoring.cost import step_cost
from batch_scoring.storage.state import REFERENCES
from batch_scoring_tests.deployed import job_of
from batch_scoring_tests.tiny import DAY, TinyProject, error_of

PRICES = Prices(cpu_hour=0.04, gb_hour=0.005)
BEFORE = ("model", "raw_input", "validated_features")


@pytest.fixture
def fan(tiny: TinyProject) -> TinyProject:
    """A day of three files in seven shards, scored in three shares."""
    tiny.spec["scoring"] |= {"shards": "fan_out", "max_shards": 3, "rows_per_shard": 50}
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(120), "a.parquet", age=100)
    tiny.land(DAY, tiny.rows(70, start=120), "b.parquet", age=100)
    tiny.land(DAY, tiny.rows(60, start=190), "c.parquet", age=100)
    return tiny


def step_of(tiny: TinyProject) -> DayStep:
    return DayStep(tiny.pipeline, DAY, "predictions")


def of_predictions(result: dg.ExecuteInProcessResult) -> list[str]:
    """The steps of predictions that began, in their order, without the pipeline's name."""
    keys = [event.step_key or "" for event in result.all_events if event.is_step_start]
    return [key.split(".")[-1].split("_", 3)[-1].lstrip("_") for key in keys if "__predictions" in key]


def figures(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    event = next(e for e in result.get_asset_materialization_events() if e.asset_key.path[-1] == "predictions")
    return {name: value.value for name, value in event.materialization.metadata.items()}


def said_by_checks(result: dg.ExecuteInProcessResult) -> list[tuple[object, ...]]:
    """Every result of a check of predictions with its day."""
    return [
        (e.check_name, e.passed, e.severity, e.partition, e.description, e.blocking)
        for e in result.get_asset_check_evaluations()
        if e.asset_key.path[-1] == "predictions"
    ]


def test_a_day_of_few_rows_is_one_share(fan: TinyProject) -> None:
    fan.spec["scoring"]["rows_per_shard"] = 1000
    fan.write_spec()
    assert of_predictions(fan.run()) == ["plan", "score_share[share_1]", "publish"]
    assert fan.read().num_rows == 250


# the same as in one step


def test_many_steps_give_bit_for_bit_what_one_step_gives(fan: TinyProject) -> None:
    bad = fan.rows(60, start=190)
    x = [666.0 if n == 7 else 555.0 if n == 9 else value for n, value in enumerate(bad["x"].to_pylist())]
    fan.land(DAY, bad.set_column(1, "x", pa.array(x)), "c.parquet")
    many = fan.run()
    assert of_predictions(many) == ["plan", *(f"score_share[share_{n}]" for n in (1, 2, 3)), "publish"]
    assert figures(many)["shares"] == 3
    seen, of_many = outcome(fan, many), step_cost(fan.published_day("predictions"), PRICES)
    for folder in ("tables", "state"):
        shutil.rmtree(Path(fan.pipeline.output.uri, folder))
    fan.spec["scoring"]["shards"] = "one_step"
    fan.write_spec()
    one = fan.run()
    assert of_predictions(one) == ["predictions"]
    assert outcome(fan, one) == seen
    of_one = step_cost(fan.published_day("predictions"), PRICES)
    assert of_many and of_one and of_many.cost and of_one.cost and of_many.overhead_cost and of_one.overhead_cost
    assert abs(of_many.cost - of_one.cost) <= of_many.overhead_cost
    assert of_many.overhead.cpu_seconds > of_one.overhead.cpu_seconds, "each share loads the model"
    assert seen["counts"] == (250, 248, 2)
    assert {name for name, *_ in seen["checks"]} == {*CHECKS, "predictions_match_reference"}
    assert {partition for _, _, _, partition, *_ in seen["checks"]} == {DAY}


def outcome(tiny: TinyProject, result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """All that a run has made of a day, but when, which run it was, and what that took."""
    published_day = tiny.published_day("predictions")
    event = next(e for e in result.get_asset_materialization_events() if e.asset_key.path[-1] == "predictions")
    rows = tiny.read()
    own = {"run_id": "", "finished_at": None, "seconds": 0.0, "overhead": None}
    return {
        "rows": rows.drop_columns("scored_at").to_pylist(),
        "schema": rows.schema,
        "quarantined": tiny.quarantined(),
        "checks": sorted(said_by_checks(result), key=str),
        "version": (event.materialization.tags or {}).get("dagster/data_version"),
        "partition": event.partition,
        "counts": (published_day.rows_in, published_day.rows, published_day.rows_quarantined),
        "shards": sorted(
            (s.model_copy(update={"run_id": "", "usage": None}) for s in published_day.shards),
            key=lambda shard: shard.digest,
        ),
        "account": published_day.model_copy(update={"shards": (), "table": None, "quarantine": None, **own}),
    }


def test_the_steps_after_predictions_are_the_same(fan: TinyProject) -> None:
    job = fan.definitions.resolve_job_def(f"score_{fan.name}")
    names = {asset.to_user_string() for asset in job.asset_layer.executable_asset_keys}
    fan.spec["scoring"]["shards"] = "one_step"
    fan.write_spec()
    one = fan.definitions.resolve_job_def(f"score_{fan.name}")
    assert names == {asset.to_user_string() for asset in one.asset_layer.executable_asset_keys}
    assert job.asset_layer.asset_graph.asset_check_keys == one.asset_layer.asset_graph.asset_check_keys


# what a day costs


def test_a_day_that_stands_starts_no_share_and_commits_nothing(fan: TinyProject) -> None:
    fan.run()
    before = fan.published_day("predictions"), fan.read()
    again = fan.run()
    assert of_predictions(again) == ["plan", "publish"]
    assert figures(again)["committed"] is False
    assert (fan.published_day("predictions"), fan.read()) == before


def test_a_changed_file_costs_only_its_shards(fan: TinyProject) -> None:
    fan.run()
    before, first = set(fan.published_day("predictions").table.files), fan.read()
    fan.land(DAY, fan.rows(61, start=190), "c.parquet")
    assert (figures(fan.run())["shards_reused"], len(before)) == (5, 7)
    assert len(before & set(fan.published_day("predictions").table.files)) == 5
    assert fan.read().num_rows == 251
    assert fan.read().slice(0, 190).equals(first.slice(0, 190)), "scored_at too"


# what publishes nothing


def test_a_check_that_blocks_is_recorded_with_its_day_and_the_last_good_version_stands(fan: TinyProject) -> None:
    fan.run()
    before = fan.published_day("predictions"), fan.read()
    fan.spec["checks"]["classes_are_balanced"] = {"share": 0.01, "blocking": True}
    fan.write_spec()
    fan.land(DAY, fan.rows(61, start=190), "c.parquet")
    result = fan.run(raise_on_error=False)
    assert error_of(result).startswith("classes_are_balanced: ")
    assert ("classes_are_balanced", False, DAY) in {(name, ok, day) for name, ok, _, day, *_ in said_by_checks(result)}
    assert {name for name, *_ in said_by_checks(result)} == set(CHECKS), "those that pass are recorded too"
    assert (fan.published_day("predictions"), fan.read()) == before
    stopped = fan.state.checks("predictions", DAY)
    assert stopped and stopped.checks["classes_are_balanced"].stopped


# a run that goes on with another one's work


def test_a_run_from_the_failure_on_goes_on_with_the_references_of_the_run_before(
    fan: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = Path(fan.pipeline.output.uri, "state", f"dt={DAY}", "checks", "predictions.json")
    in_the_way.mkdir(parents=True)
    job, tags = job_of(fan, monkeypatch), {"dagster/partition": DAY}
    with dg.DagsterInstance.ephemeral() as instance:
        failed = dg.execute_job(job, instance, tags=tags)
        assert [e.step_key.split("_")[-1] for e in failed.all_events if e.is_step_failure and e.step_key] == ["publish"]
        in_the_way.rmdir()
        (began,) = Path(fan.pipeline.output.uri, REFERENCES, failed.run_id).glob("*.began.json")
        told = json.loads(began.read_text())
        assert told["overhead"]["wall_seconds"] > 0
        began.write_text(json.dumps(told | {"at": "2020-01-01T00:00:00+00:00", "overhead": {"cpu_seconds": 1000}}))
        options = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
        again = dg.execute_job(job, instance, tags=tags, reexecution_options=options)
        assert again.success
    assert [e.step_key for e in again.all_events if e.is_step_start] == [
        f"{fan.name}__predictions.{fan.name}_publish",
        f"{fan.name}_drift",
    ]
    assert fan.read().num_rows == 250
    published = fan.published_day("predictions")
    assert 0 < published.seconds < 60
    assert published.overhead and 1000 < published.overhead.cpu_seconds < 1060, "that of the plan, too"
    told = fan.pipeline.output.list(f"{REFERENCES}/")
    assert {file.path.split("/")[2] for file in told} == {failed.run_id}, "the parent's, and none of its own"
