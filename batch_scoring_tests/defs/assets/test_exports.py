"""Exports in Dagster: an asset and a step each, in a job of their own."""

import dagster as dg
import pytest

from batch_scoring.delivery.exports.export import export_day
from batch_scoring.delivery.exports.files import FileSink
from batch_scoring.delivery.exports.sink import Delivered, Delivery
from batch_scoring.errors import RowsLostError
from batch_scoring.operations.failed_runs import TAG
from batch_scoring_tests.exports import (
    NAME,
    break_sink,
    exported,
    manifest,
    mend_sink,
    refusing,
    run_exports,
    scored,
    tick,
    tick_and_run,
    with_export,
)
from batch_scoring_tests.tiny import DAY, TinyProject, checks, error_of, run_of_test

DAYS = ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (event,) = result.get_asset_materialization_events()
    return {name: entry.value for name, entry in event.materialization.metadata.items()}


def test_without_exports_a_pipeline_looks_as_before(tiny: TinyProject) -> None:
    found = tiny.definitions
    keys = {"/".join(key.path[1:]) for key in found.resolve_asset_graph().get_all_asset_keys()}
    assert keys == {"raw_input", "validated_features", "model", "predictions", "report", "retention"}
    assert {sensor.name for sensor in found.sensors or []} == {"dead_runs", "alerts", f"{tiny.name}_uploads"}
    jobs = {job.name for job in found.resolve_all_job_defs() if not job.name.startswith("__")}
    assert jobs == {f"{kind}_{tiny.name}" for kind in ("score", "report", "retain")}


def test_an_export_is_an_asset_with_checks_in_a_job_of_its_own(tiny: TinyProject) -> None:
    with_export(with_export(tiny), "other", path="other_{day}.csv.gz")
    found = tiny.definitions
    graph = found.resolve_asset_graph()
    node = graph.get(dg.AssetKey([tiny.name, "export_list"]))
    assert node.parent_keys == {dg.AssetKey([tiny.name, "predictions"])}
    assert isinstance(node.partitions_def, dg.DailyPartitionsDefinition)
    assert (node.group_name, node.kinds) == (tiny.name, {"parquet"})
    assert graph.get(dg.AssetKey([tiny.name, "export_other"])).kinds == {"csv"}
    found_checks = {key.name: graph.get(key).blocking for key in graph.asset_check_keys if key.asset_key == node.key}
    assert found_checks == {"export_is_whole": False, "exports_are_current": False}
    jobs = {job.name: job for job in found.resolve_all_job_defs()}
    in_job = {name: {key.path[-1] for key in jobs[name].asset_layer.executable_asset_keys} for name in jobs}
    assert in_job[f"export_{tiny.name}"] == {"export_list", "export_other"}
    assert in_job[f"score_{tiny.name}"] == {"raw_input", "validated_features", "model", "predictions"}


def test_a_step_has_the_pod_of_exports(tiny: TinyProject) -> None:
    tiny.spec["compute"] = {"exports": {"memory": "7Gi"}}
    node = with_export(tiny).definitions.resolve_asset_graph().get(dg.AssetKey([tiny.name, "export_list"]))
    tags = node.assets_def.op.tags
    assert "7Gi" in str(tags["dagster-k8s/config"])


def test_a_materialisation_says_what_arrived_where(tiny: TinyProject) -> None:
    scored(with_export(tiny))
    result = run_exports(tiny)
    said = metadata(result)
    assert (said["outcome"], said["rows"], said["rows_sent"], said["dagster/partition_row_count"]) == (
        "exported",
        12,
        12,
        12,
    )
    assert str(said["dagster/uri"]).endswith(".parquet") and "manifest" in str(said["where"])
    assert checks(result) == {"export_list/export_is_whole": True, "export_list/exports_are_current": True}
    assert metadata(run_exports(tiny))["exported_by"] == result.run_id


def test_again_is_a_setting_of_the_run(tiny: TinyProject) -> None:
    scored(with_export(tiny))
    run_exports(tiny)
    config = {"ops": {f"{tiny.name}__export_list": {"config": {"again": True}}}}
    second = run_exports(tiny, None, NAME, config=config)
    shown = manifest(tiny)
    assert shown and shown.run_id == second.run_id


def test_a_sink_that_fails_stops_no_other_export_and_no_night(tiny: TinyProject) -> None:
    with_export(with_export(tiny), "other", path="elsewhere/other_{day}.csv")
    scored(tiny)
    break_sink(tiny)
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_exports(tiny, instance)
        assert not result.success
        assert {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key} == {
            "export_other"
        }
        run = instance.get_run_by_id(result.run_id)
        assert run and run.tags[TAG] == "sink"
        assert tiny.run(DAY, instance=instance).success


def test_a_refusal_has_a_class_of_its_own(tiny: TinyProject) -> None:
    scored(refusing(tiny))
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_exports(tiny, instance)
        run = instance.get_run_by_id(result.run_id)
        assert run and run.tags[TAG] == "bad_sink"
        assert "exports.list: the environment variable NOT_SET" in error_of(result)


def test_a_sink_that_loses_rows_fails_the_check_and_the_run(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    scored(with_export(tiny))

    def lose(sink: FileSink, delivery: Delivery) -> Delivered:
        raise RowsLostError("11 of 12 rows are there")

    monkeypatch.setattr(FileSink, "deliver", lose)
    result = run_exports(tiny)
    assert not result.success
    assert checks(result) == {"export_list/export_is_whole": False, "export_list/exports_are_current": True}


def test_an_old_day_that_was_corrected_is_named_with_the_command_and_told_once(tiny: TinyProject) -> None:
    with_export(tiny, recent_days=1)
    scored(tiny, *DAYS)
    for day in DAYS:
        run_exports(tiny, day=day)
    scored(tiny, *DAYS[:2], DAYS[3], rows=13)  # the last is left to the sensor

    def finding(day: str) -> dg.AssetCheckEvaluation:
        (found,) = [
            check
            for check in run_exports(tiny, day=day).get_asset_check_evaluations()
            if check.check_name == "exports_are_current"
        ]
        return found

    first = finding(DAYS[2])
    assert not first.passed and first.severity == dg.AssetCheckSeverity.WARN
    command = f"batch-scoring export {tiny.name} list 2024-03-01 2024-03-02"
    assert first.description == f"2 days were corrected since the export: 2024-03-01 … 2024-03-02; run: {command}"
    assert "continues_since" not in first.metadata
    assert finding(DAYS[3]).metadata["continues_since"].value == DAYS[2]
    for day in DAYS[:2]:
        export_day(tiny.pipeline, NAME, day, run_of_test())
    assert finding(DAYS[3]).passed


# the sensor


def test_the_sensor_exports_one_day_after_the_other_the_newest_first(tiny: TinyProject) -> None:
    scored(with_export(tiny), *DAYS)
    with dg.DagsterInstance.ephemeral() as instance:
        ends = [tick_and_run(tiny, instance) for _ in range(4)]
        assert ends == [[f"list {day} succeeded"] for day in (DAYS[3], DAYS[2], DAYS[1])] + [[]]
        assert tick(tiny, instance) == ([], "every recent day is exported as published")


def test_nothing_is_exported_twice_with_an_empty_instance(tiny: TinyProject) -> None:
    scored(with_export(tiny))
    with dg.DagsterInstance.ephemeral() as instance:
        tick_and_run(tiny, instance)
    before = manifest(tiny)
    with dg.DagsterInstance.ephemeral() as instance:
        assert tick_and_run(tiny, instance) == []
        tiny.pipeline.output.remove(f"state/dt={DAY}/exports/list.json")
        assert tick_and_run(tiny, instance) == [f"list {DAY} succeeded"]
    assert manifest(tiny) == before


def test_a_sink_that_is_back_gets_what_it_has_missed(tiny: TinyProject) -> None:
    tiny.spec["runs"] = {"retry_minutes": 0}
    scored(with_export(tiny))
    break_sink(tiny)
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(5):
            assert tick_and_run(tiny, instance) == [f"list {DAY} failed"]
        mend_sink(tiny)
        assert tick_and_run(tiny, instance) == [f"list {DAY} succeeded"]
        assert tick_and_run(tiny, instance) == []
    assert exported(tiny).num_rows == 12


def test_between_attempts_there_are_pauses_and_a_refusal_is_final_until_something_changes(tiny: TinyProject) -> None:
    scored(refusing(tiny))
    with dg.DagsterInstance.ephemeral() as instance:
        assert tick_and_run(tiny, instance) == [f"list {DAY} failed"]
        requests, said = tick(tiny, instance)
        assert not requests and said.startswith(f"list: refused: {DAY} by run ")
        with_export(tiny)
        break_sink(tiny)
        assert tick_and_run(tiny, instance) == [f"list {DAY} failed"]
        requests, said = tick(tiny, instance)
        assert not requests and "failed 2 times in a row, tried again in " in said


def test_an_export_that_is_stopped_in_the_spec_is_left_to_the_command(tiny: TinyProject) -> None:
    with_export(with_export(tiny, default_status="stopped"), "other")
    scored(tiny)
    with dg.DagsterInstance.ephemeral() as instance:
        assert tick_and_run(tiny, instance) == [f"other {DAY} succeeded"]
        assert tick_and_run(tiny, instance) == []
    (sensor,) = [sensor for sensor in tiny.definitions.sensors or [] if sensor.name == f"{tiny.name}_exports"]
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    with_export(tiny, "other", default_status="stopped")
    (sensor,) = [sensor for sensor in tiny.definitions.sensors or [] if sensor.name == f"{tiny.name}_exports"]
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


def test_the_night_knows_nothing_of_runs_of_exports(tiny: TinyProject) -> None:
    """They are no runs of the day: neither an attempt of its files, nor smaller batches after one that was lost."""
    from batch_scoring.operations import run_history

    scored(with_export(tiny))
    break_sink(tiny)
    with dg.DagsterInstance.ephemeral() as instance:
        tick_and_run(tiny, instance)
        assert run_history.of_day(instance, tiny.pipeline, DAY) == []
