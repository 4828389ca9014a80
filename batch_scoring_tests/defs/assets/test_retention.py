"""The asset retention, its job and its schedule."""

import os
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.config.names import retention_job_name
from batch_scoring.defs.schedules import retention_schedule
from batch_scoring_tests.reliability.scenarios import score
from batch_scoring_tests.tiny import DAY, TinyProject


@pytest.fixture
def old(tiny: TinyProject) -> TinyProject:
    """A pipeline with three files that were replaced ten days ago."""
    for start in (0, 1000):
        tiny.land(DAY, tiny.rows(50, start))
        score(tiny.pipeline, DAY, "r")
    for file in Path(tiny.pipeline.output.uri, "tables").rglob("*"):
        if file.is_file():
            stamp = file.stat().st_mtime - 10 * 86400
            os.utime(file, (stamp, stamp))
    return tiny


def files(tiny: TinyProject) -> set[Path]:
    return set(Path(tiny.pipeline.output.uri, "tables").rglob("*"))


def launched(tiny: TinyProject, instance: dg.DagsterInstance, config: dict | None = None) -> dg.ExecuteInProcessResult:
    job = tiny.definitions.resolve_job_def(retention_job_name(tiny.pipeline))
    return job.execute_in_process(run_config=config or {}, instance=instance, raise_on_error=False)


def test_a_run_counts_and_the_schedules_run_deletes(old: TinyProject) -> None:
    before = files(old)
    with dg.DagsterInstance.ephemeral() as instance:
        (event,) = launched(old, instance).get_asset_materialization_events()
        found = event.materialization.metadata
        assert event.asset_key == dg.AssetKey([old.name, "retention"])
        assert found["dry_run"].value is True and files(old) == before
        assert found["superseded_files"].value == 2 and int(found["superseded_bytes"].value) > 0  # type: ignore[arg-type]
        table = [record.data for record in found["would_go"].records]  # type: ignore[union-attr]
        assert [(row["kind"], row["after_days"], row["files"]) for row in table] == [
            ("superseded", 7.0, 2),
            ("scratch", 7.0, 0),
            ("reports", None, 0),
            ("samples", None, 0),
            ("quarantine", None, 0),
            ("models", None, 0),
            ("features", None, 0),
            ("decisions", None, 0),
            ("failures", 90.0, 0),
        ]

        schedule = retention_schedule(old.pipeline)
        assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
        when = datetime(2024, 3, 5, 11, 45, tzinfo=UTC)
        with dg.build_schedule_context(instance=instance, scheduled_execution_time=when) as context:
            (request,) = schedule.evaluate_tick(context).run_requests or []
        (event,) = launched(old, instance, dict(request.run_config)).get_asset_materialization_events()
        found = event.materialization.metadata
        assert found["dry_run"].value is False and found["superseded_files"].value == 2
        assert len(before - files(old)) == 2
    assert old.read().num_rows == 50


def test_a_spec_may_have_the_schedule_running(old: TinyProject) -> None:
    old.spec["retention"] = {"default_status": "running"}
    old.write_spec()
    assert retention_schedule(old.pipeline).default_status == dg.DefaultScheduleStatus.RUNNING


def test_what_could_not_be_told_fails_the_run_and_the_rest_is_done(old: TinyProject) -> None:
    log = Path(old.pipeline.output.uri, "tables/predictions/_delta_log")
    log.rename(log.parent / "_elsewhere")
    step = f"{old.name}__retention"
    with dg.DagsterInstance.ephemeral() as instance:
        result = launched(old, instance, {"ops": {step: {"config": {"dry_run": False}}}})
        (failure,) = (event for event in result.all_events if event.is_step_failure)
        data = failure.step_failure_data.user_failure_data
    assert not result.success and data is not None
    assert (data.description or "").startswith("table predictions: ") and "no log" in (data.description or "")
    assert data.metadata["superseded_files"].value == 1, "the features' file went"


def test_the_maximum_runtime_of_the_instance_makes_files_stay_longer(old: TinyProject, tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir()
    monitoring = {"run_monitoring": {"enabled": True, "max_runtime_seconds": 8 * 86400}}
    with dg.DagsterInstance.local_temp(str(home), overrides=monitoring) as instance:
        (event,) = launched(old, instance).get_asset_materialization_events()
    assert event.materialization.metadata["superseded_files"].value == 0
