"""Retention as people meet it: the asset, its job and schedule, the command."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.cli.main import main
from batch_scoring.config import pipeline
from batch_scoring.config.loader import PROJECT
from batch_scoring.config.names import retention_job_name
from batch_scoring.defs.assets.retention import size
from batch_scoring.defs.schedules import retention_schedule
from batch_scoring_tests.reliability.scenarios import score
from batch_scoring_tests.tiny import DAY, TinyProject, normalised


@pytest.fixture
def old(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """A pipeline with three files that were replaced ten days ago, the only one that the command sees."""
    for start in (0, 1000):
        tiny.land(DAY, tiny.rows(50, start))
        score(tiny.pipeline, DAY, "r")
    for file in Path(tiny.pipeline.output.uri, "tables").rglob("*"):
        if file.is_file():
            stamp = file.stat().st_mtime - 10 * 86400
            os.utime(file, (stamp, stamp))
    monkeypatch.setattr(pipeline, "PIPELINES", tiny.packages)
    monkeypatch.setattr(pipeline.survey_pipelines, "__defaults__", (tiny.packages, None))
    monkeypatch.setenv("BATCH_SCORING_DATA", tiny.data_root)
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


def test_the_command_says_what_may_go_and_deletes_only_when_asked(
    old: TinyProject, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files(old)
    assert main(["retention", old.name]) == 0
    said = normalised(capsys.readouterr().out).splitlines()
    assert said[0].startswith("tiny in ") and said[0].endswith(": may go")
    assert said[3].split()[:4] == ["superseded", "7", "days", "2"]
    assert said[3].endswith("tables/validated_features 1, tables/predictions 1")
    assert said[5].split() == ["reports", "ever", "0", "0", "B"]
    assert said[6].split() == ["samples", "ever", "0", "0", "B"]
    assert said[9].startswith(f"  tables/validated_features/dt={DAY}/") and ", unused since before 20" in said[9]
    assert said[-1] == "nothing was removed; to do so: batch-scoring retention tiny --delete"
    assert files(old) == before

    assert main(["retention", old.name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["deleted"], told["problems"], told["kinds"]["superseded"]["files"]) == (False, [], 2)
    assert {file["kind"] for file in told["files"]} == {"superseded"} and files(old) == before

    assert main(["retention", old.name, "--delete", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    root = Path(old.pipeline.output.uri)
    assert told["deleted"] and before - files(old) == {root / file["path"] for file in told["files"]}
    assert main(["retention", old.name, "--delete"]) == 0
    assert normalised(capsys.readouterr().out).splitlines()[0].endswith(": removed")


def test_the_command_fails_where_something_is_unsure_and_says_what(
    old: TinyProject, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for entry in Path(old.pipeline.output.uri, "tables").rglob("_delta_log/*.json"):
        os.utime(entry, (1.7e9, 1.7e9))
    before = files(old)
    assert main(["retention", old.name, "--delete"]) == 1
    said = capsys.readouterr().out
    assert "problem: nothing was removed, the clock is doubted: nothing was published for " in said
    assert files(old) == before
    assert main(["retention", old.name, "--delete", "--clock-is-right"]) == 0
    assert len(before - files(old)) == 2
    assert main(["retention", "nobody"]) == 2
    assert "no pipeline 'nobody'; there are: tiny" in normalised(capsys.readouterr().err)


def test_sizes_are_for_people() -> None:
    assert [size(n) for n in (0, 999, 1000, 12_345_678, 5 * 10**15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 MB",
        "5000.0 TB",
    ]
    assert PROJECT.is_dir()
