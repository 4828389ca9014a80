"""What the project takes for granted of Dagster 1.13, so that an upgrade fails a test and not a night."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.errors import DagsterInvalidMetadata
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import should_retry
from dagster._scheduler.scheduler import ScheduleIterationTimes, launch_scheduled_runs

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_offset=1)
DAY = "2024-01-05"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def check_of(asset: str, name: str = "holds", days: dg.PartitionsDefinition | None = DAYS) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=dg.AssetKey(["p", asset]), blocking=True, partitions_def=days)


def make_asset(
    name: str,
    *,
    deps: tuple[str, ...] = (),
    days: dg.PartitionsDefinition | None = DAYS,
    specs: tuple[dg.AssetCheckSpec, ...] = (),
    passes: bool = True,
) -> dg.AssetsDefinition:
    """An asset of the project's form: it yields the results of its checks, then raises or materialises."""

    @dg.asset(
        key=["p", name], deps=[dg.AssetKey(["p", dep]) for dep in deps], partitions_def=days, check_specs=list(specs)
    )
    def made(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        for spec in specs:
            yield dg.AssetCheckResult(passed=passes, asset_key=spec.asset_key, check_name=spec.name)
        if not passes:
            raise dg.Failure("it does not hold", allow_retries=False)
        yield dg.MaterializeResult(metadata={"day": context.partition_key if context.has_partition_key else "none"})

    return made


def run(
    *assets: dg.AssetsDefinition, instance: dg.DagsterInstance, select: list[str] | None = None
) -> dg.ExecuteInProcessResult:
    keys = [dg.AssetKey(["p", name]) for name in select] if select else None
    job = dg.define_asset_job("job", selection=[asset.key for asset in assets])
    deployment = dg.Definitions(assets=list(assets), jobs=[job], executor=dg.in_process_executor)
    return deployment.resolve_job_def("job").execute_in_process(
        partition_key=DAY, instance=instance, asset_selection=keys, raise_on_error=False, run_config=QUIET
    )


def history(instance: dg.DagsterInstance, asset: str, name: str = "holds") -> list[tuple[str, str | None]]:
    """Status and partition of every record of a check, newest first."""
    key = dg.AssetCheckKey(dg.AssetKey(["p", asset]), name)
    records: list[AssetCheckExecutionRecord] = list(
        instance.event_log_storage.get_asset_check_execution_history(key, limit=20)
    )
    return [(record.status.value, record.partition) for record in records]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


# selecting


def test_a_plus_before_a_key_with_a_slash_is_one_layer_of_ancestors() -> None:
    """So predictions depends on raw_input too: `--select "+flight_delay/predictions"` must take in all four."""
    chain = [make_asset("a"), make_asset("b", deps=("a",)), make_asset("c", deps=("b",))]
    graph = dg.Definitions(assets=chain).resolve_asset_graph()

    def selected(text: str) -> set[str]:
        return {key.path[-1] for key in dg.AssetSelection.from_string(text).resolve(graph)}

    assert selected('+key:"p/c"') == {"a", "b", "c"}
    # what the command line does with a text that does not parse as the new syntax
    assert {key.path[-1] for key in dg.AssetSelection.from_coercible(["+p/c"]).resolve(graph)} == {"b", "c"}
    assert {key.path[-1] for key in dg.AssetSelection.from_coercible(["++p/c"]).resolve(graph)} == {"a", "b", "c"}


# checks in an asset's own step


def test_results_yielded_before_a_failure_are_recorded_with_their_day(instance: dg.DagsterInstance) -> None:
    first, second = check_of("a", "first"), check_of("a", "second")
    result = run(make_asset("a", specs=(first, second), passes=False), instance=instance)
    assert not result.success
    for name in ("first", "second"):
        assert history(instance, "a", name) == [("FAILED", DAY)]


def test_an_asset_that_fails_after_its_results_is_not_materialised_and_downstream_is_skipped(
    instance: dg.DagsterInstance,
) -> None:
    upstream = make_asset("a", specs=(check_of("a"),), passes=False)
    result = run(upstream, make_asset("b", deps=("a",)), instance=instance)
    assert not result.get_asset_materialization_events()
    assert instance.get_latest_materialization_event(dg.AssetKey(["p", "a"])) is None
    assert [event.step_key for event in result.all_events if event.is_step_failure] == ["p__a"]
    assert not [event for event in result.all_events if event.is_step_start and event.step_key == "p__b"]


def test_a_failed_result_alone_would_let_the_asset_materialise(instance: dg.DagsterInstance) -> None:
    """A blocking check does not undo its own step: the step must raise, as `report` does."""
    spec = check_of("a")

    @dg.asset(key=["p", "a"], partitions_def=DAYS, check_specs=[spec])
    def a(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        yield dg.AssetCheckResult(passed=False, asset_key=spec.asset_key, check_name=spec.name)
        yield dg.MaterializeResult()

    result = run(a, instance=instance)
    assert [event.asset_key.path[-1] for event in result.get_asset_materialization_events()] == ["a"]


def test_a_failed_blocking_result_skips_downstream(instance: dg.DagsterInstance) -> None:
    spec = check_of("a")

    @dg.asset(key=["p", "a"], partitions_def=DAYS, check_specs=[spec])
    def a(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        yield dg.MaterializeResult()
        yield dg.AssetCheckResult(passed=False, asset_key=spec.asset_key, check_name=spec.name)

    result = run(a, make_asset("b", deps=("a",)), instance=instance)
    assert not result.success
    assert {event.asset_key.path[-1] for event in result.get_asset_materialization_events()} == {"a"}


def test_a_result_that_is_not_yielded_stays_planned_for_ever(instance: dg.DagsterInstance) -> None:
    """So every finding is reported, also when another one has failed."""

    @dg.asset(key=["p", "a"], partitions_def=DAYS, check_specs=[check_of("a")])
    def a(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        raise dg.Failure("before any result")

    run(a, instance=instance)
    assert history(instance, "a") == [("PLANNED", DAY)]


def test_a_check_without_days_on_a_daily_asset_loses_its_day(instance: dg.DagsterInstance) -> None:
    """So every spec has `partitions_def`."""
    run(make_asset("a", specs=(check_of("a", days=None),)), instance=instance)
    assert sorted(history(instance, "a"), key=str) == [("PLANNED", DAY), ("SUCCEEDED", None)]


def test_a_blocking_check_does_not_hold_in_a_later_run_of_downstream_alone(instance: dg.DagsterInstance) -> None:
    """So an asset refuses by itself what its upstream's checks have failed; the check alone would not."""
    assets = make_asset("a", specs=(check_of("a"),), passes=False), make_asset("b", deps=("a",))
    assert not run(*assets, instance=instance).success
    assert run(*assets, instance=instance, select=["b"]).success


# an asset without days in a job with days


def test_an_asset_without_days_materialises_without_one_in_a_daily_job(instance: dg.DagsterInstance) -> None:
    result = run(make_asset("model", days=None), make_asset("a", deps=("model",)), instance=instance)
    found = {event.asset_key.path[-1]: event.partition for event in result.get_asset_materialization_events()}
    assert found == {"model": None, "a": DAY}


def test_its_context_has_the_runs_day_nevertheless(instance: dg.DagsterInstance) -> None:
    """`days_are_current` leaves out the day that this very run scores."""
    result = run(make_asset("model", days=None), make_asset("a"), instance=instance)
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key.path[-1] == "model"]
    assert event.materialization.metadata["day"].value == DAY


def test_checks_with_days_on_an_asset_without_them_are_recorded_with_the_runs_day(instance: dg.DagsterInstance) -> None:
    model = make_asset("model", days=None, specs=(check_of("model"),))
    run(model, make_asset("predictions", deps=("model",)), instance=instance)
    assert history(instance, "model") == [("SUCCEEDED", DAY)]


def test_checks_without_days_on_it_leave_a_planned_row_each_day(instance: dg.DagsterInstance) -> None:
    """So the model's checks have days though the model has none. (A run's days are those of its last step, by name.)"""
    model = make_asset("model", days=None, specs=(check_of("model", days=None),))
    run(model, make_asset("predictions", deps=("model",)), instance=instance)
    assert sorted(history(instance, "model"), key=str) == [("PLANNED", DAY), ("SUCCEEDED", None)]


# running in this process


def test_runs_in_this_process_are_kept_by_a_persistent_instance(tmp_path: Path) -> None:
    assets = make_asset("model", days=None), make_asset("a", deps=("model",), specs=(check_of("a"),))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        first, second = run(*assets, instance=instance), run(*assets, instance=instance)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        records = instance.get_run_records()
        assert [record.dagster_run.run_id for record in records] == [second.run_id, first.run_id]
        assert {record.dagster_run.status for record in records} == {dg.DagsterRunStatus.SUCCESS}
        assert all(record.dagster_run.tags["dagster/partition"] == DAY for record in records)
        assert all(record.start_time for record in records)
        assert history(instance, "a") == [("SUCCEEDED", DAY)] * 2
        assert instance.get_materialized_partitions(dg.AssetKey(["p", "a"])) == {DAY}


def test_a_failed_run_in_this_process_is_a_result_and_no_exception(instance: dg.DagsterInstance) -> None:
    result = run(make_asset("a", specs=(check_of("a"),), passes=False), instance=instance)
    assert not result.success
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data and failure.user_failure_data.description == "it does not hold"
    assert instance.get_run_by_id(result.run_id).status == dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]


def test_part_of_a_jobs_assets_can_be_run(instance: dg.DagsterInstance) -> None:
    assets = make_asset("a"), make_asset("b", deps=("a",))
    result = run(*assets, instance=instance, select=["b"])
    assert [event.asset_key.path[-1] for event in result.get_asset_materialization_events()] == ["b"]


def test_the_step_sees_the_start_of_its_run(instance: dg.DagsterInstance) -> None:
    """`scored_at` is the start of the run: one value for all of its rows."""
    seen: list[float | None] = []

    @dg.asset(key=["p", "a"], partitions_def=DAYS)
    def a(context: dg.AssetExecutionContext) -> None:
        record = context.instance.get_run_record_by_id(context.run.run_id)
        seen.append(record.start_time if record else None)

    run(a, instance=instance)
    assert len(seen) == 1 and seen[0]


def test_an_explicit_data_version_is_kept(instance: dg.DagsterInstance) -> None:
    @dg.asset(key=["p", "a"], partitions_def=DAYS)
    def a() -> dg.MaterializeResult:
        return dg.MaterializeResult(data_version=dg.DataVersion("the-fingerprint"))

    run(a, instance=instance)
    event = instance.get_latest_materialization_event(dg.AssetKey(["p", "a"]))
    assert event and event.asset_materialization
    assert (event.asset_materialization.tags or {})["dagster/data_version"] == "the-fingerprint"


# what is recorded outside of a run


def test_a_check_of_a_day_can_be_recorded_without_a_run(instance: dg.DagsterInstance) -> None:
    """So a day that never landed is red in the UI."""
    failed = dg.AssetCheckEvaluation(dg.AssetKey(["p", "a"]), "holds", passed=False, partition=DAY)
    instance.report_runless_asset_event(failed)
    assert history(instance, "a") == [("FAILED", DAY)]
    run(make_asset("a", specs=(check_of("a"),)), instance=instance)
    assert history(instance, "a") == [("SUCCEEDED", DAY), ("FAILED", DAY)]


def test_an_end_stays_where_it_is_when_a_run_is_touched_later(instance: dg.DagsterInstance) -> None:
    """So alerts go by the end: the update time of a run of last year moves with a tag."""
    result = run(make_asset("a"), instance=instance)
    (before,) = instance.get_run_records()
    instance.add_run_tags(result.run_id, {"seen": "yes"})
    (after,) = instance.get_run_records()
    assert after.end_time == before.end_time and after.update_timestamp > before.update_timestamp
    filters = dg.RunsFilter(updated_after=before.update_timestamp)
    assert [record.dagster_run.run_id for record in instance.get_run_records(filters)] == [result.run_id]


def test_values_that_a_daemon_keeps_are_written_together_only_if_all_or_none_are_there(tmp_path: Path) -> None:
    """So the outbox is one value: of two, a new one beside an old one is lost without a word."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        storage = instance.daemon_cursor_storage
        storage.set_cursor_values({"old": "1"})
        storage.set_cursor_values({"old": "2", "new": "2"})
        assert storage.get_cursor_values({"old", "new"}) == {"old": "2"}


# days


def test_today_exists_with_an_end_offset_of_one() -> None:
    plain, early = (dg.DailyPartitionsDefinition("2024-01-01", end_offset=offset) for offset in (0, 1))
    noon = datetime(2024, 1, 10, 12, tzinfo=UTC)
    with partition_loading_context(noon):
        assert plain.get_last_partition_key() == "2024-01-09"
        assert early.get_last_partition_key() == "2024-01-10"


def test_days_begin_in_the_time_zone_of_the_partitions() -> None:
    days = dg.DailyPartitionsDefinition("2013-01-01", timezone="America/New_York", end_offset=1)
    window = days.time_window_for_partition_key("2013-03-10")
    assert window.end.timestamp() - window.start.timestamp() == 23 * 3600, "the clocks went forward"


def test_a_month_that_the_start_lies_within_is_left_out() -> None:
    """So a pipeline's months begin on the first day of the month that it starts in."""
    assert dg.MonthlyPartitionsDefinition("2024-03-15").get_first_partition_key() == "2024-04-01"
    assert dg.MonthlyPartitionsDefinition("2024-03-01").get_first_partition_key() == "2024-03-01"


@pytest.mark.parametrize("allowed", [False, True])
def test_days_that_do_not_exist_are_required_of_a_month_unless_the_mapping_allows_it(allowed: bool) -> None:
    """So the report says that it does: a backfill of a month with days to come would be refused."""
    days, months = dg.DailyPartitionsDefinition("2024-03-15"), dg.MonthlyPartitionsDefinition("2024-03-01")
    mapping = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=allowed)
    march = months.subset_with_partition_keys(["2024-03-01"])
    mapped = mapping.get_upstream_mapped_partitions_result_for_partitions(march, months, days)
    assert len(mapped.partitions_subset.get_partition_keys()) == 17
    required = mapped.required_but_nonexistent_subset
    assert required.is_empty is allowed


# schedules


def test_of_the_ticks_that_a_daemon_has_missed_only_the_last_is_made_up(tmp_path: Path) -> None:
    """Dagster catches up with schedules of a partition set only, and none has that any more.

    So a schedule's days of an outage are left to the uploads sensor, or to a person: docs/guides/automatic-scoring.md.
    """
    code = tmp_path / "code.py"
    code.write_text("""
import dagster as dg

@dg.asset(partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_offset=1))
def a(): ...

job = dg.define_asset_job("job", selection=[a])

@dg.schedule(cron_schedule="0 6 * * *", job=job, default_status=dg.DefaultScheduleStatus.RUNNING)
def daily(context):
    return dg.RunRequest(partition_key=f"{context.scheduled_execution_time:%Y-%m-%d}")

defs = dg.Definitions(assets=[a], jobs=[job], schedules=[daily])
""")
    queue = {"run_coordinator": {"module": "dagster", "class": "QueuedRunCoordinator"}}
    with (
        dg.DagsterInstance.local_temp(str(tmp_path), overrides=queue) as instance,
        create_test_daemon_workspace_context(PythonFileTarget(str(code), None, None, None), instance) as workspace,
    ):
        times: dict[str, ScheduleIterationTimes] = {}
        requested = []
        for now in (datetime(2024, 3, 1, 5, tzinfo=UTC), datetime(2024, 3, 4, 7, tzinfo=UTC)):
            with freeze_time(now):
                list(launch_scheduled_runs(workspace, logging.getLogger("scheduler"), now, times))
            requested.append([run.tags["dagster/partition"] for run in instance.get_runs()])
    assert requested == [[], ["2024-03-04"]]


# runs


def test_a_failed_run_of_a_jobs_backfill_is_announced_to_be_retried_and_never_is(tmp_path: Path) -> None:
    """A job's backfill is over when its runs are queued. So who waits for the announced retry waits for a time only."""
    retries = {"run_retries": {"enabled": True, "max_retries": 2}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=retries) as instance:
        instance.add_backfill(
            PartitionBackfill(
                backfill_id="b",
                status=BulkActionStatus.COMPLETED,
                from_failure=False,
                tags={},
                backfill_timestamp=0.0,
                partition_names=[DAY],
            )
        )
        run = instance.create_run_for_job(
            dg.GraphDefinition(name="job", node_defs=[]).to_job(), tags={"dagster/backfill": "b"}
        )
        instance.report_run_failed(run, "killed")
        failed = instance.get_run_by_id(run.run_id)
        assert failed is not None and failed.tags["dagster/will_retry"] == "true"
        assert not should_retry(failed, instance)


# metadata


def test_numpy_numbers_are_refused_as_metadata() -> None:
    """So every figure is cast."""
    with pytest.raises(DagsterInvalidMetadata):
        dg.AssetMaterialization("a", metadata={"rows": np.float32(1.0)})  # type: ignore[dict-item]
