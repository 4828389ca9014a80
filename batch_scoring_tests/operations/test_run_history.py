"""The runs of a day: which count, how they ended, and what of the next one follows from that."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.cli import day_runs
from batch_scoring.daily import freshness
from batch_scoring.operations import run_history
from batch_scoring.storage.state import State
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def test_a_run_says_what_it_was_about_whoever_started_it(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run(instance=instance)
    (run,) = run_history.of_day(instance, tiny.pipeline, DAY)
    assert run.fingerprint == freshness.fingerprints(tiny.pipeline, [DAY])[DAY]
    assert (run.status, run.code, run.is_whole) == ("succeeded", run_history.current_code(tiny.pipeline), True)
    tiny.run(instance=instance, steps=["raw_input"])
    assert [run.is_whole for run in run_history.of_day(instance, tiny.pipeline, DAY)] == [False, True]


def test_runs_of_other_days_pipelines_and_jobs_are_not_the_days(
    tiny: TinyProject, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    other = TinyProject(tmp_path / "other")
    other.land(DAY, other.rows(64))
    other.run(instance=instance)
    tiny.land(NEXT_DAY, tiny.rows(64))
    tiny.run(NEXT_DAY, instance=instance)
    graph = dg.GraphDefinition(name="other", node_defs=[])
    instance.create_run_for_job(graph.to_job(), tags={"dagster/partition": DAY})
    assert run_history.of_day(instance, tiny.pipeline, DAY) == []


def test_many_runs_of_other_pipelines_do_not_hide_the_days(tiny: TinyProject, instance: dg.DagsterInstance) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run(instance=instance)
    job = dg.GraphDefinition(name="other", node_defs=[]).to_job()
    for _ in range(run_history.RUNS_PER_QUERY + 5):
        instance.create_run_for_job(job, tags={"dagster/partition": DAY})
    assert len(run_history.of_day(instance, tiny.pipeline, DAY)) == 1


def test_a_run_that_draws_the_page_of_a_month_is_none_of_its_first_day(
    tiny: TinyProject, instance: dg.DagsterInstance
) -> None:
    tiny.definitions.resolve_job_def(f"report_{tiny.name}").execute_in_process(
        instance=instance, partition_key="2024-03-01"
    )
    assert run_history.of_day(instance, tiny.pipeline, "2024-03-01") == []


# the run of a day that was stopped


def test_a_day_that_was_stopped_is_no_failed_try_and_is_run_again(tiny: TinyProject, tmp_path: Path) -> None:
    tiny.land(DAY, tiny.rows(64))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = tiny.definitions.resolve_job_def(f"score_{tiny.name}")
        run = instance.create_run_for_job(job, tags={run_history.PARTITION: DAY})
        start = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
        instance.report_dagster_event(start, run.run_id)
        assert [one.status for one in run_history.of_day(instance, tiny.pipeline, DAY)] == ["started"]
        day_runs.cancel(instance, run.run_id, "batch-scoring backfill")
        assert [one.status.value for one in instance.get_runs()] == ["CANCELED"]
        assert run_history.of_day(instance, tiny.pipeline, DAY) == []
        copy = instance.create_run_for_job(job, tags={run_history.PARTITION: DAY, run_history.STOPPED: run.run_id})
        instance.report_run_failed(copy)
        assert [one.status for one in run_history.of_day(instance, tiny.pipeline, DAY)] == ["failed"], (
            "a tag that was copied"
        )
    assert State(tiny.pipeline.output).published_day("predictions", DAY) is None


def test_a_run_that_has_ended_well_meanwhile_is_not_canceled(tiny: TinyProject, tmp_path: Path) -> None:
    tiny.land(DAY, tiny.rows(64))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run_id = tiny.run(instance=instance).run_id
        day_runs.cancel(instance, run_id, "batch-scoring backfill")
        found = instance.get_run_by_id(run_id)
        assert found is not None and found.is_success and json.dumps(found.tags).count("stopped") == 0
