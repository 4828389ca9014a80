"""The sensor over a real landing folder, real runs and a real instance; time alone is given."""

import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.daily import freshness
from batch_scoring.defs.sensors import uploads_sensor
from batch_scoring.operations import run_history
from batch_scoring.operations.automation import landing_scan
from batch_scoring.operations.automation.landing_scan import Tick
from batch_scoring.operations.automation.planner import TickState
from batch_scoring_tests.tiny import DAY, NETWORK, NEXT_DAY, SCHEMA, TinyProject

QUIET = 120.0
"""Seconds ago, when the files of a test came."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def look(tiny: TinyProject, instance: dg.DagsterInstance, cursor: str | None = None, later: float = 0.0) -> Tick:
    return landing_scan.tick(tiny.pipeline, instance, TickState.read(cursor), now=time.time() + later)


def asked(tick: Tick) -> list[str]:
    return [request.day for request in tick.plan.requests]


def evaluated(tiny: TinyProject, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    """What Dagster gets from the sensor."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=tiny.definitions)
    result = uploads_sensor(tiny.pipeline)(context)
    assert isinstance(result, dg.SensorResult)
    return result


def land(tiny: TinyProject, day: str, count: int, name: str = "a.parquet") -> None:
    tiny.land(day, tiny.rows(count), name, age=QUIET)


# the sensor


def test_a_landed_day_is_asked_for_and_runs_with_tags_that_say_why(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    assert asked(look(tiny, instance)) == []
    land(tiny, DAY, 64)
    result = evaluated(tiny, instance)
    assert result.run_requests and result.skip_reason is None
    (request,) = result.run_requests
    assert request.partition_key == DAY
    assert set(request.tags) >= {
        run_history.FINGERPRINT,
        run_history.CODE,
        run_history.ATTEMPT,
        "batch_scoring/why",
        "dagster/priority",
    }
    job = tiny.definitions.resolve_job_def(f"score_{tiny.name}")
    assert job.execute_in_process(instance=instance, tags=request.tags, partition_key=DAY).success
    assert asked(look(tiny, instance)) == []


def test_days_whose_decisions_look_back_are_asked_for_one_after_another(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.spec["decisions"] = {"actions": {"call": {"most": 8, "not_within_days": 9}}}
    tiny.spec["uploads"] = {"recent_days": 1, "older_days": 1}
    tiny.write_spec()
    for day in (NEXT_DAY, DAY):
        land(tiny, day, 64)
    assert landing_scan.bounds_of(tiny.pipeline, instance).recent_days == 10, "all that they look back at"
    tick = look(tiny, instance)
    assert asked(tick) == [DAY] and f"{NEXT_DAY}: its decisions look back at {DAY}" in tick.summary
    tiny.run(instance=instance)
    assert asked(look(tiny, instance)) == [NEXT_DAY]


def test_a_tick_without_news_says_what_it_saw(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    result = evaluated(tiny, instance)
    assert not result.run_requests and isinstance(result.skip_reason, dg.SkipReason)
    assert (result.skip_reason.skip_message or "").startswith("examined 0 days in ")


def test_bad_names_are_observed_once_and_stop_nothing(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    land(tiny, DAY, 64)
    for path in ("notes.txt", "2024-03-04/a.parquet", "dt=1999-01-01/a.parquet", "_tmp/x", "dt=9999-99-99/x y.csv"):
        tiny.pipeline.landing.put(path, b"?")
    result = evaluated(tiny, instance)
    assert len(result.run_requests or ()) == 1
    observed = [event for event in result.asset_events if isinstance(event, dg.AssetObservation)]
    assert {event.asset_key.to_user_string() for event in observed} == {f"{tiny.name}/raw_input"}
    assert sorted(str(event.metadata["key"].value) for event in observed) == [
        "2024-03-04/",
        "dt=1999-01-01/",
        "dt=9999-99-99/",
        "notes.txt",
    ]
    assert evaluated(tiny, instance, result.cursor).asset_events == []


# what is settled


def test_an_empty_instance_and_a_wiped_cursor_ask_for_nothing_that_is_scored(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    land(tiny, DAY, 64)
    land(tiny, NEXT_DAY, 64)
    tiny.run(DAY, instance=instance)
    with dg.DagsterInstance.ephemeral() as empty:
        assert asked(look(tiny, empty)) == [NEXT_DAY]


def test_the_first_steps_alone_settle_nothing(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    land(tiny, DAY, 64)
    for steps in (["raw_input"], ["raw_input", "validated_features"]):
        tiny.run(instance=instance, steps=steps)
        assert asked(look(tiny, instance)) == [DAY]


def test_a_then_b_then_a_is_run_each_time(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    file = Path(tiny.pipeline.landing.uri, f"dt={DAY}", "a.parquet")
    kept = file.with_name("_kept")
    keys = set()
    for count in (64, 65, 64):
        if kept.exists() and count == 64:
            shutil.copy2(kept, file)  # content and time as they were: the very same version
        else:
            land(tiny, DAY, count)
        if not kept.exists():
            shutil.copy2(file, kept)
        (request,) = look(tiny, instance).plan.requests
        keys.add(request.run_key)
        tiny.run(instance=instance)
        assert tiny.read().num_rows == count
        assert look(tiny, instance).plan.requests == ()
    assert len(keys) == 3


def test_a_day_whose_predictions_are_of_older_features_is_asked_for(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    land(tiny, DAY, 64)
    tiny.run(instance=instance)
    land(tiny, DAY, 70)
    tiny.run(instance=instance, steps=["raw_input", "validated_features"])
    assert freshness.fingerprints(tiny.pipeline, [DAY]) == {}
    assert asked(look(tiny, instance)) == [DAY]


def test_a_table_that_is_gone_makes_its_days_unsettled(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    land(tiny, DAY, 64)
    tiny.run(instance=instance)
    assert list(freshness.fingerprints(tiny.pipeline, [DAY])) == [DAY]
    shutil.rmtree(Path(tiny.pipeline.output.uri, "tables", "predictions"))
    assert freshness.fingerprints(tiny.pipeline, [DAY]) == {}


def test_a_promotion_asks_for_nothing_by_itself(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    land(tiny, DAY, 64)
    tiny.run(instance=instance)
    tiny.deliver("v2", seed=2)
    assert asked(look(tiny, instance)) == []


def test_deleted_files_are_told_once_and_the_scores_stand(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    day = str(datetime.now(UTC).date() - timedelta(days=3))
    land(tiny, day, 64)
    tiny.land(day, tiny.rows(10, start=100), "b.parquet", age=QUIET)
    tiny.run(day, instance=instance)
    folder = Path(tiny.pipeline.landing.uri, f"dt={day}")
    (folder / "b.parquet").unlink()
    some = look(tiny, instance)
    assert asked(some) == [] and "some of its files were deleted" in some.plan.reports[0].text
    shutil.rmtree(folder)
    gone = look(tiny, instance, some.plan.memory.model_dump_json())
    assert asked(gone) == [] and "all of its files were deleted" in gone.plan.reports[0].text
    assert look(tiny, instance, gone.plan.memory.model_dump_json()).plan.reports == ()
    tiny.land(day, tiny.rows(3), "c.parquet", age=QUIET)
    assert asked(look(tiny, instance)) == [day], "something new has come"


# runs


def test_a_run_that_its_checks_have_refused_is_not_repeated_until_files_or_code_change(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.land(DAY, b"no parquet", age=QUIET)
    tiny.run(instance=instance, raise_on_error=False)
    tick = look(tiny, instance, later=86400)
    assert asked(tick) == [] and "refused by its checks" in tick.plan.waiting[DAY]
    tiny.write_code(network=f"{NETWORK}\n# repaired\n")
    assert asked(look(tiny, instance)) == [DAY]
    tiny.run(instance=instance, raise_on_error=False)
    assert asked(look(tiny, instance, later=86400)) == []
    land(tiny, DAY, 64)
    assert asked(look(tiny, instance)) == [DAY]


def test_a_missing_column_refuses_the_day_too(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    tiny.land(DAY, tiny.rows(64).drop_columns(["x"]), age=QUIET)
    tiny.run(instance=instance, raise_on_error=False)
    assert "refused" in look(tiny, instance, later=86400).plan.waiting[DAY]
    tiny.write_code(schema=f"{SCHEMA}\n# repaired\n")
    assert asked(look(tiny, instance)) == [DAY]


def test_a_run_that_fails_otherwise_is_tried_three_times_in_all(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    land(tiny, DAY, 64)
    tables = Path(tiny.pipeline.output.uri, "tables")
    tables.write_text("a file where the folder of the tables should be")
    for attempt in (1, 2, 3):
        (request,) = look(tiny, instance, later=3600 * attempt).plan.requests
        assert request.attempt == attempt
        assert not tiny.run(instance=instance, raise_on_error=False).success
        assert asked(look(tiny, instance)) == []
    tick = look(tiny, instance, later=86400)
    assert asked(tick) == [] and "given up after 3 failed runs" in tick.plan.waiting[DAY]
    tables.unlink()
    tiny.run(instance=instance)
    assert look(tiny, instance).plan.waiting == {}


def test_a_day_that_is_not_complete_is_not_used_up_by_the_runs_of_others(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.spec["input"]["complete"] = {"by": "marker"}
    tiny.write_spec()
    land(tiny, DAY, 64)
    assert "there is no _SUCCESS" in look(tiny, instance).plan.waiting[DAY]
    tiny.run(instance=instance, raise_on_error=False)  # a schedule's
    Path(tiny.pipeline.landing.uri, f"dt={DAY}", "_SUCCESS").touch()
    assert asked(look(tiny, instance)) == [DAY]


def test_a_sensor_whose_process_is_older_than_the_code_on_disk_counts_its_tries(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.land(DAY, b"no parquet", age=QUIET)
    older = tiny.pipeline
    assert older.features_code and older.scoring_code  # read, as the sensor's process has long done
    (request,) = landing_scan.tick(older, instance, TickState()).plan.requests
    tiny.write_code(schema=f"{SCHEMA}\n# deployed meanwhile\n")
    job = tiny.definitions.resolve_job_def(f"score_{tiny.name}")
    tags = {run_history.CODE: run_history.current_code(older), run_history.FINGERPRINT: request.fingerprint}
    job.execute_in_process(instance=instance, tags=tags, partition_key=DAY, raise_on_error=False)
    assert "refused" in landing_scan.tick(older, instance, TickState()).plan.waiting[DAY]


def test_code_that_was_broken_for_a_while_is_asked_for_again_when_it_is_what_it_was(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    """`dagster dev` loads code once, its runs load what stands on the disk."""
    tiny.spec["input"]["complete"] = {"quiet_minutes": 0}
    tiny.write_spec()
    land(tiny, DAY, 64)
    before = tiny.pipeline
    sensor, definitions = uploads_sensor(before), tiny.definitions
    assert before.features_code and before.scoring_code  # read, as the sensor's process has long done

    def asked_for() -> list[str]:
        result = sensor(dg.build_sensor_context(instance=instance, definitions=definitions))
        assert isinstance(result, dg.SensorResult)
        for request in result.run_requests or []:
            job = tiny.definitions.resolve_job_def(f"score_{tiny.name}")
            job.execute_in_process(
                instance=instance, tags=request.tags, partition_key=request.partition_key, raise_on_error=False
            )
        return [str(request.partition_key) for request in result.run_requests or []]

    tiny.write_code(network=f"{NETWORK}\nraise RuntimeError('half written')\n")
    assert asked_for() == [DAY] and asked_for() == []
    assert run_history.of_day(instance, before, DAY)[0].failure == "bad_model"
    tiny.write_code(network=NETWORK)
    assert asked_for() == [DAY] and asked_for() == []
    assert tiny.read().num_rows == 64


# a store in trouble


def test_a_tick_that_the_store_does_not_answer_says_so_and_decides_nothing(
    tiny: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(tiny, DAY, 64)
    monkeypatch.setattr(landing_scan, "LISTING_TIMEOUT", 0.05)
    monkeypatch.setattr(landing_scan, "see", lambda *_, **__: time.sleep(0.3))
    with pytest.raises(TimeoutError, match=rf"{tiny.pipeline.landing.uri}: the store did not answer"):
        look(tiny, instance)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_landing_folder_that_may_not_be_read_is_an_error(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    land(tiny, DAY, 64)
    folder = Path(tiny.pipeline.landing.uri)
    folder.chmod(0)
    try:
        with pytest.raises(PermissionError, match=str(folder)):
            look(tiny, instance)
    finally:
        folder.chmod(0o755)
    assert asked(look(tiny, instance)) == [DAY]


def test_a_tick_without_time_looks_at_one_day_at_least_and_says_what_is_left(
    tiny: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(tiny, DAY, 64)
    land(tiny, NEXT_DAY, 64)
    monkeypatch.setattr(landing_scan, "BUDGET", -1.0)
    tick = look(tiny, instance)
    assert asked(tick) == [NEXT_DAY] and tick.left == 1
    assert "no time for 1 days" in tick.summary


def test_a_damaged_account_makes_its_day_unsettled_and_no_other(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    for day in (DAY, NEXT_DAY):
        land(tiny, day, 64)
        tiny.run(day, instance=instance)
    Path(tiny.pipeline.output.uri, "state", f"dt={DAY}", "predictions.json").write_text("{")
    assert list(freshness.fingerprints(tiny.pipeline, [DAY, NEXT_DAY])) == [NEXT_DAY]
