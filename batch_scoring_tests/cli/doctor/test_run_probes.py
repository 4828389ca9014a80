"""Broken set-ups on a disk: for each the right finding, and nothing else."""

import contextlib
import copy
import io
import json
import os
import platform
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import yaml
from dagster._core.events import EngineEventData
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo
from deltalake import DeltaTable

from batch_scoring.cli.doctor import commits, machine, probe, run_probes, stores
from batch_scoring.cli.doctor.probe import ProbeFinding, ProbeOutcome, Site
from batch_scoring.cli.doctor.report import DoctorReport
from batch_scoring.cli.main import main
from batch_scoring.config.loader import PROJECT
from batch_scoring.errors import UnknownPipelineError
from batch_scoring.operations.alerting import channels
from batch_scoring.operations.alerting.channels import Message
from batch_scoring.operations.alerting.outbox import Outbox
from batch_scoring.operations.automation import sensor_status
from batch_scoring_tests.broken_bundles import seal
from batch_scoring_tests.broken_sites import Clinic, findings, told, without_hard_links
from batch_scoring_tests.operations.automation.test_sensor_status import Sensor
from batch_scoring_tests.tiny import DAY, NEXT_DAY, SCHEMA, TinyProject

BIN = Path(sys.executable).parent


@pytest.fixture
def tmp_path(on_disk: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=on_disk))


@pytest.fixture
def clinic(tmp_path: Path, tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    """A site with a file that has landed, never scored."""
    site = Clinic(tmp_path, tiny)
    monkeypatch.setenv("DAGSTER_HOME", str(site.home))
    tiny.land(DAY, tiny.rows(64), age=300)
    return site


@pytest.fixture(scope="module")
def _template(on_disk: Path) -> Clinic:
    """A site with a file that has landed, and an instance in which nothing has happened; nobody changes it."""
    folder = on_disk / "template"
    site = Clinic(folder, TinyProject(folder))
    site.tiny.land(DAY, site.tiny.rows(64), age=300)
    with site.instance() as instance:
        instance.get_runs_count()
        instance.all_instigator_state()
    return site


@pytest.fixture
def deployed(tmp_path: Path, _template: Clinic, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    """The same site with an instance of the test's own: for faults that are not the pipeline's."""
    site = copy.copy(_template)
    site.home = tmp_path / "home"
    shutil.copytree(_template.home, site.home)
    monkeypatch.setenv("DAGSTER_HOME", str(site.home))
    return site


@pytest.fixture(scope="module")
def _two_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a tiny pipeline holds that has scored two days."""
    tiny = TinyProject(tmp_path_factory.mktemp("scored"))
    tiny.land(DAY, tiny.rows(64), age=300)
    tiny.land(NEXT_DAY, tiny.rows(60, start=100), age=300)
    for day in (DAY, NEXT_DAY):
        tiny.run(day)
    return Path(tiny.pipeline.output.uri)


@pytest.fixture
def scored(clinic: Clinic, _two_days: Path, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    """The same, with two days scored."""
    for part in ("models", "landing", "tables", "state"):
        shutil.copytree(_two_days / part, Path(clinic.tiny.pipeline.output.uri, part), dirs_exist_ok=True)
    monkeypatch.setattr(commits, "SETTLES", 0.01)
    with clinic.instance() as instance:
        instance.get_runs_count()
    return clinic


def table(clinic: Clinic, name: str = "predictions") -> Path:
    return Path(clinic.tiny.pipeline.output.uri, "tables", name)


def last_commit(clinic: Clinic) -> Path:
    return max((table(clinic) / "_delta_log").glob("*.json"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


# well


def test_a_site_that_was_never_scored_is_well_and_stays_as_it_is(clinic: Clinic, tmp_path: Path) -> None:
    before = files_of(tmp_path), sorted(tmp_path.rglob("*"))
    report = clinic.look()
    assert findings(report) == [], report.text()
    assert "nothing found" in report.text()
    assert (files_of(tmp_path), sorted(tmp_path.rglob("*"))) == before


def test_a_site_at_work_is_well_and_its_data_stays_as_it_is(scored: Clinic) -> None:
    with scored.instance() as instance:
        for kind in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 30, kind, "x", []))
    data = Path(scored.tiny.data_root)
    before = files_of(data), files_of(scored.home), sorted(data.rglob("*")), sorted(scored.home.rglob("*"))
    report = scored.look()
    assert findings(report) == [], report.text()
    after = files_of(data), files_of(scored.home), sorted(data.rglob("*")), sorted(scored.home.rglob("*"))
    assert after == before


# specs and input


def test_a_wrong_field_and_an_unknown_time_zone_are_both_said(clinic: Clinic) -> None:
    clinic.tiny.spec["scoring"]["rows_per_shart"] = 5
    clinic.tiny.spec["partitions"]["timezone"] = "Mars/Olympus"
    clinic.tiny.write_spec()
    report = clinic.look()
    assert findings(report) == [("error", "specs")] * 2
    assert "rows_per_shart" in report.text() and "Mars/Olympus" in report.text()
    assert all("pipeline.yaml" in finding.where for finding, _ in report.findings() if finding.severity == "error")


def test_a_landing_folder_that_is_not_there(clinic: Clinic) -> None:
    shutil.rmtree(clinic.tiny.pipeline.landing.uri)
    report = clinic.look()
    told(report, "error", "landing folder", clinic.tiny.pipeline.landing.uri, "mkdir -p")
    skipped = {outcome.probe.name for outcome in report.outcomes if outcome.skipped}
    assert skipped == {"newest landing file", "landing names"}, "one fault, one finding"


def test_no_landing_file_at_all(clinic: Clinic) -> None:
    shutil.rmtree(Path(clinic.tiny.pipeline.landing.uri, f"dt={DAY}"))
    told(clinic.look(), "warning", "newest landing file", "no data file", ".parquet")


def test_of_the_newest_file_a_missing_column(clinic: Clinic) -> None:
    clinic.tiny.land(NEXT_DAY, clinic.tiny.rows(10).drop_columns(["y"]))
    told(clinic.look(), "error", "newest landing file", f"dt={NEXT_DAY}/a.parquet", "has no column y", "schema.py")


def test_of_the_newest_file_a_retyped_column(clinic: Clinic) -> None:
    rows = clinic.tiny.rows(10)
    rows = rows.set_column(rows.column_names.index("n"), "n", rows["n"].cast(pa.string()))
    clinic.tiny.land(NEXT_DAY, rows)
    told(clinic.look(), "error", "newest landing file", "column n is string", "expects int64")


def test_of_a_csv_file_cells_of_another_kind(clinic: Clinic) -> None:
    lines = [f"k{number},0.5,0.5,{number}.25,red" for number in range(20)]
    clinic.tiny.land(NEXT_DAY, "\n".join(["id,x,y,n,c", *lines, ""]).encode(), "a.csv")
    told(clinic.look(), "error", "newest landing file", "20 of its first 20 rows are rejected", "n is_int64")


def test_of_a_csv_file_whole_floats_for_an_integer(clinic: Clinic) -> None:
    lines = [f"k{number},0.5,0.5,{number}.0,red" for number in range(20)]
    clinic.tiny.land(NEXT_DAY, "\n".join(["id,x,y,n,c", *lines, ""]).encode(), "a.csv")
    told(
        clinic.look(),
        "error",
        "newest landing file",
        "n is_int64",
        "n: a missing value turns integers into floats",
        "coerce=True",
    )


def test_an_unexpected_column_is_worth_a_word_and_no_more(clinic: Clinic) -> None:
    clinic.tiny.land(NEXT_DAY, clinic.tiny.rows(10).append_column("colour_2", pa.array(["red"] * 10)))
    report = clinic.look()
    assert findings(report) == [] and "the schema does not know: colour_2" in report.text()


def test_a_newest_file_that_was_cut_short(clinic: Clinic) -> None:
    file = Path(clinic.tiny.pipeline.landing.uri, f"dt={DAY}", "a.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    told(clinic.look(), "error", "newest landing file", "not a complete Parquet file", "upload it again")


def test_a_name_in_the_landing_folder_that_is_no_day(clinic: Clinic) -> None:
    Path(clinic.tiny.pipeline.landing.uri, "dt=20240306").mkdir()
    told(clinic.look(), "warning", "landing names", "dt=20240306", "dt=YYYY-MM-DD")


def test_an_entry_of_a_newest_day_that_is_no_file(clinic: Clinic) -> None:
    Path(clinic.tiny.pipeline.landing.uri, f"dt={DAY}", "b.csv").symlink_to("/etc/passwd")
    report = clinic.look()
    told(report, "error", "landing names", "b.csv", "a link to '/etc/passwd', which leads out of", "replace it with")
    assert "root:" not in report.text()


def test_a_schema_that_does_not_import(clinic: Clinic) -> None:
    clinic.tiny.write_code(schema="from math import no_such_name\n" + SCHEMA)
    told(clinic.look(), "error", "newest landing file", "schema:Rows", "no_such_name", "schema.py line 1")


def test_a_library_that_is_not_installed(clinic: Clinic) -> None:
    clinic.tiny.write_code(schema="import no_such_library\n" + SCHEMA)
    told(
        clinic.look(), "error", "specs", "features.schema", "schema.py line 1", "no_such_library", "pipeline.yaml line"
    )


# model


def test_a_damaged_bundle(clinic: Clinic) -> None:
    file = Path(clinic.tiny.pipeline.bundle.uri, "model.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    told(clinic.look(), "error", "model bundle", "bundle_is_intact", "model.safetensors", "deliver the bundle again")


def test_golden_rows_that_do_not_agree(clinic: Clinic) -> None:
    import safetensors.torch

    folder = Path(clinic.tiny.pipeline.bundle.uri)
    weights = safetensors.torch.load((folder / "model.safetensors").read_bytes())
    weights = {name: tensor + 0.5 for name, tensor in weights.items()}
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(weights))
    seal(folder)
    told(clinic.look(), "error", "model bundle", "golden_rows_agree", "the golden rows differ by")


def test_a_metric_below_its_threshold(clinic: Clinic) -> None:
    clinic.tiny.spec["checks"]["metrics_meet_threshold"] = {"least": {"auc": 0.9}}
    clinic.tiny.write_spec()
    told(clinic.look(), "warning", "model bundle", "auc is not recorded, expected at least 0.9")


# tables


def test_a_torn_last_commit_and_what_doctor_says_puts_it_right(scored: Clinic) -> None:
    commit = last_commit(scored)
    commit.write_bytes(commit.read_bytes()[:-40])
    report = scored.look()
    told(report, "error", "table logs", str(commit), f"rm {commit}")
    commit.unlink()
    told(scored.look(), "error", "table rows", NEXT_DAY, "0 rows; state/ records 60", "batch-scoring backfill")
    scored.tiny.run(NEXT_DAY)
    assert findings(scored.look()) == []


def test_an_empty_last_commit(scored: Clinic) -> None:
    last_commit(scored).write_bytes(b"")
    report = scored.look()
    assert findings(report) == [("error", "table rows"), ("warning", "table logs")], report.text()
    assert "a power cut destroyed it" in report.text()
    scored.tiny.run(NEXT_DAY)
    assert findings(scored.look()) == []


@pytest.mark.parametrize("left", [0, 100])
def test_a_damaged_checkpoint_and_what_doctor_says_puts_it_right(scored: Clinic, left: int) -> None:
    DeltaTable(table(scored)).create_checkpoint()
    (checkpoint,) = (table(scored) / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:left])
    report = scored.look()
    told(report, "error", "table logs", str(checkpoint), "_last_checkpoint")
    remedy = report.findings()[0][0].remedy.split(";")[0]
    assert remedy.startswith("rm ")
    subprocess.run(remedy, shell=True, check=True)
    assert findings(scored.look()) == []


def test_a_commit_that_is_missing(scored: Clinic) -> None:
    (table(scored) / "_delta_log" / f"{1:020}.json").unlink()
    told(scored.look(), "error", "table logs", f"{1:020}.json", "is missing", "backup")


def test_two_compactions_at_once_have_doubled_rows_and_another_run_puts_it_right(scored: Clinic) -> None:
    one, other = DeltaTable(table(scored)), DeltaTable(table(scored))
    scored.tiny.run(DAY)
    for compacting in (one, other):
        compacting.optimize.z_order(["id"])
    report = scored.look()
    told(report, "error", "table rows", "128 rows, 2 times; state/ records 64", f"{DAY} {NEXT_DAY}", "OPTIMIZE")
    for day in (DAY, NEXT_DAY):
        scored.tiny.run(day)
    assert findings(scored.look()) == []


@pytest.mark.parametrize("is_first", [True, False])
def test_a_commit_whose_account_is_to_come_is_a_run_at_work_for_some_minutes(scored: Clinic, is_first: bool) -> None:
    for step in commits.WRITING_STEPS:
        file = Path(scored.tiny.pipeline.output.uri, f"state/dt={DAY}/{step}.json")
        published_day = json.loads(file.read_text())
        published_day["table"]["transaction"] -= 1
        published_day["shards"][0]["rows"] += 1
        file.unlink() if is_first else file.write_text(json.dumps(published_day))
    for age, severities in ((0, set()), (commits.IN_FLIGHT + 60, {"warning" if is_first else "error"})):
        for commit in table(scored).parent.glob("*/_delta_log/*.json"):
            os.utime(commit, (time.time() - age,) * 2)
        report = scored.look()
        assert set(findings(report)) == {(severity, "table rows") for severity in severities}, report.text()
        assert ("not yet in state/: a run is at work" in report.text()) == (age == 0)


def test_one_compaction_is_no_finding(scored: Clinic) -> None:
    DeltaTable(table(scored)).optimize.z_order(["id"])
    assert findings(scored.look()) == []


def test_a_data_file_that_somebody_has_removed(scored: Clinic) -> None:
    (file,) = (table(scored) / f"dt={DAY}").glob("*.parquet")
    file.unlink()
    told(scored.look(), "error", "table rows", f"{file.name} has no bytes", DAY)


def test_a_damaged_account(scored: Clinic) -> None:
    published_day = Path(scored.tiny.pipeline.output.uri, f"state/dt={DAY}/predictions.json")
    published_day.write_bytes(published_day.read_bytes()[:100])
    report = scored.look()
    assert findings(report) == [("error", "table rows"), ("warning", "table rows")]
    assert str(published_day) in report.text()


# disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk in memory with options; it takes a right that not everybody has."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("nothing may be mounted here")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", "-l", place], check=True)


def on_disk(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    clinic = Clinic(tmp_path, TinyProject(tmp_path / "project", str(place / "data")))
    monkeypatch.setenv("DAGSTER_HOME", str(clinic.home))
    clinic.tiny.land(DAY, clinic.tiny.rows(64))
    return clinic


IN_MEMORY = ("warning", "lasting storage")


def test_a_disk_that_has_become_read_only(
    disk: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic = on_disk(disk("size=600m"), tmp_path, monkeypatch)
    subprocess.run(["mount", "-o", "remount,ro", tmp_path / "disk"], check=True)
    report = clinic.look()
    assert findings(report) == [("error", "writable"), IN_MEMORY], report.text()
    assert "Read-only file system" in report.text() and "mount -o remount,rw" in report.text()
    assert "it is in memory (tmpfs): tables and state are gone" in report.text()


@pytest.mark.parametrize(
    ("options", "severity", "says"),
    [
        ("size=4m", "error", "MiB free"),
        ("size=300m", "warning", "300 MiB free"),
        ("size=600m,nr_inodes=100", "error", "inodes free"),
    ],
)
def test_a_disk_that_is_nearly_full(
    disk: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, severity: str, says: str
) -> None:
    clinic = on_disk(disk(options), tmp_path, monkeypatch)
    report = clinic.look()
    assert sorted(findings(report)) == sorted([(severity, "disk"), IN_MEMORY]), report.text()
    assert says in report.text().replace("299 MiB", "300 MiB")


def test_a_dagster_home_in_memory(
    deployed: Clinic, disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = disk("size=600m")
    shutil.copy(deployed.home / "dagster.yaml", place)
    monkeypatch.setenv("DAGSTER_HOME", str(place))
    told(deployed.look(), "warning", "lasting instance", str(place), "waiting alerts are gone", "DAGSTER_HOME")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the system calls are x86_64's")
def test_a_folder_without_hard_links(deployed: Clinic) -> None:
    report = without_hard_links(deployed.look)
    told(report, "error", "hard links", "it does not support hard links: Operation not permitted", "BATCH_SCORING_DATA")


# the instance


def test_a_dagster_home_that_is_no_folder(deployed: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(deployed.home / "gone"))
    told(deployed.look(), "error", "instance", "DAGSTER_HOME", "is not a folder")


def test_no_dagster_home_outside_of_the_checkout(
    deployed: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    monkeypatch.chdir(tmp_path)
    told(deployed.look(), "warning", "instance", "it is not set", f"export DAGSTER_HOME={PROJECT}")


def test_a_dagster_home_without_settings(deployed: Clinic) -> None:
    (deployed.home / "dagster.yaml").unlink()
    told(deployed.look(), "warning", "instance", "no dagster.yaml", "cp ")


def test_settings_that_dagster_refuses(deployed: Clinic) -> None:
    (deployed.home / "dagster.yaml").write_text("run_monitorin: {enabled: true}\n")
    told(deployed.look(), "error", "instance", "run_monitorin")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"run_retries": {"enabled": True}}, "run_retries.retry_on_asset_or_op_failure is not set"),
        ({"run_monitoring": {"enabled": True, "free_slots_after_run_end_seconds": 60}}, "max_runtime_seconds"),
        ({"concurrency": {}}, "concurrency.runs.max_concurrent_runs is not set"),
    ],
)
def test_settings_with_which_nights_go_wrong(deployed: Clinic, change: dict[str, Any], says: str) -> None:
    file = deployed.home / "dagster.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change))
    told(deployed.look(), "warning", "instance settings", says)


def test_a_database_that_is_damaged(deployed: Clinic) -> None:
    (deployed.home / "history" / "runs.db").write_bytes(b"no database" * 100)
    told(deployed.look(), "error", "instance", "file is not a database")


def test_an_executor_that_there_is_not_and_one_whose_pods_share_nothing(
    deployed: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_SCORING_EXECUTOR", "kubernetes")
    told(deployed.look(), "error", "executor", "'kubernetes'", "in_process, multiprocess or k8s", "deploy/README.md")
    monkeypatch.setenv("BATCH_SCORING_EXECUTOR", "k8s")
    told(deployed.look(), "error", "executor", deployed.tiny.pipeline.output.uri, "BATCH_SCORING_DATA_SHARED=1")
    monkeypatch.setenv("BATCH_SCORING_DATA_SHARED", "1")
    told(deployed.look(), "error", "executor", "DefaultRunLauncher", "K8sRunLauncher")


def test_a_daemon_that_has_run_and_runs_no_more(deployed: Clinic) -> None:
    with deployed.instance() as instance:
        for kind in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 3600, kind, "x", []))
    told(deployed.look(), "error", "daemon", "no heartbeat since", "nothing is scored automatically", "make dev")


def test_a_part_of_the_daemon_that_is_silent_and_one_that_fails(deployed: Clinic) -> None:
    error = SerializableErrorInfo("OperationalError: database is locked\n", [], "x")
    with deployed.instance() as instance:
        for kind in instance.get_required_daemon_types():
            age, errors = 3600 if kind == "SENSOR" else 10, [error] if kind == "SCHEDULER" else []
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - age, kind, "x", errors))
    report = deployed.look()
    assert findings(report) == [("error", "daemon"), ("warning", "daemon")]
    assert "SENSOR" in report.text() and "database is locked" in report.text()


def test_the_sensor_of_a_broken_pipeline_is_no_fault_of_the_daemon(deployed: Clinic) -> None:
    """The spec's own fault is told; this is what Dagster makes of the sensor that shows it."""
    words = (
        f"Error occurred during the execution of evaluation_fn for sensor {sensor_status.broken_name('half_made')}\n"
    )
    with deployed.instance() as instance:
        for kind in instance.get_required_daemon_types():
            error = SerializableErrorInfo(f"dagster._core.errors.SensorExecutionError: {words}", [], "x")
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 10, kind, "x", [error]))
    assert findings(deployed.look()) == []


def test_every_sensor_of_a_pipeline_switched_off(deployed: Clinic) -> None:
    with deployed.instance() as instance:
        Sensor(instance, f"{deployed.tiny.name}_uploads").switch(InstigatorStatus.STOPPED)
    told(deployed.look(), "error", "what starts days", "nothing starts a day", "dagster sensor start")


def test_a_sensor_that_was_switched_off_beside_a_schedule_that_is_on(clinic: Clinic) -> None:
    clinic.tiny.spec["schedule"] = {"default_status": "running"}
    clinic.tiny.write_spec()
    with clinic.instance() as instance:
        Sensor(instance, f"{clinic.tiny.name}_uploads").switch(InstigatorStatus.STOPPED)
    told(clinic.look(), "warning", "what starts days", f"on: score_{clinic.tiny.name}_on_schedule")


@pytest.mark.parametrize("name", ["alerts", "dead_runs"])
def test_a_sensor_of_the_deployment_switched_off(deployed: Clinic, name: str) -> None:
    with deployed.instance() as instance:
        Sensor(instance, name).switch(InstigatorStatus.STOPPED)
    report = deployed.look()
    told(report, "warning", "guards", f"sensor {name}", f"dagster sensor start {name}")
    assert report.fails("warning") and not report.fails("error")


def test_a_sensor_that_goes_on_failing(deployed: Clinic) -> None:
    with deployed.instance() as instance:
        sensor = Sensor(instance, f"{deployed.tiny.name}_uploads")
        sensor.ticks(1, ago=600), sensor.ticks(1, ago=10)
    told(deployed.look(), "error", "ticks", "StoreError: s3://bucket does not answer")


@dg.job
def idle() -> None:
    """Of runs that are only written down."""


def test_a_run_whose_process_is_gone(deployed: Clinic) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    with deployed.instance() as instance:
        run = instance.create_run_for_job(idle, status=dg.DagsterRunStatus.STARTING)
        instance.report_engine_event(
            "began",
            run,
            engine_event_data=EngineEventData(metadata={"pid": dg.MetadataValue.text(str(process.pid))}),
        )
        instance.handle_new_event(_started(run))
    told(deployed.look(), "warning", "dead runs", run.run_id, "its process is gone")


def _started(run: dg.DagsterRun) -> dg.EventLogEntry:
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
    return dg.EventLogEntry(
        error_info=None,
        level=10,
        user_message="",
        run_id=run.run_id,
        timestamp=time.time(),
        job_name=run.job_name,
        dagster_event=event,
    )


def test_a_slot_of_a_pool_that_a_run_holds_which_is_over(deployed: Clinic) -> None:
    with deployed.instance() as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 1)
        run = instance.create_run_for_job(idle, status=dg.DagsterRunStatus.CANCELED)
        instance.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "step")
    told(deployed.look(), "warning", "dead runs", "pool gpu", run.run_id)


def test_an_instance_that_two_commands_have_created_at_once_and_what_doctor_says_mends_it(clinic: Clinic) -> None:
    with clinic.instance():
        pass
    file = clinic.home / "schedules/schedules.db"
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("INSERT INTO alembic_version VALUES ('5771160a95ad')")
    report = clinic.look()
    told(report, "error", "instance", str(file), "two processes created it at the same time")
    remedy = report.findings()[0][0].remedy
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    subprocess.run(remedy, shell=True, check=True, env=environment)
    assert findings(clinic.look()) == []


def test_an_event_log_that_does_not_know_whether_a_run_lives(clinic: Clinic) -> None:
    settings = yaml.safe_load((clinic.home / "dagster.yaml").read_text())
    del settings["event_log_storage"]
    (clinic.home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with clinic.instance():
        pass
    told(clinic.look(), "warning", "dead runs", "event_log_storage", "EventLog")


# the machine


def test_an_alert_address_that_is_not_understood_and_its_password_stay_between_us(
    deployed: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERT_URLS", "json://127.0.0.1:1/hook nosuch://user:hunter22@chat.example.com")
    report = deployed.look()
    told(report, "warning", "alert channels", "ALERT_URLS[2]", "does not understand")
    assert "hunter22" not in report.text() + report.json()


def test_a_channel_that_takes_no_test_message(deployed: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_URLS", "json://user:hunter22@127.0.0.1:1/hook")
    report = deployed.look(send_test=True)
    told(report, "warning", "alert channels", "ALERT_URLS[1] (json)", "not delivered: not accepted or not reached")
    assert "hunter22" not in report.text() + report.json()


def test_a_message_that_a_channel_has_refused(deployed: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_URLS", "json://127.0.0.1:1/hook")
    with deployed.instance() as instance:
        outbox = Outbox(instance.daemon_cursor_storage, channels.parse("json://127.0.0.1:1/hook"))
        outbox.put([Message(topic="t", title="t", body="b", kind="info")], "")
        outbox.deliver(5)
    told(deployed.look(), "warning", "waiting alerts", "1 wait for ALERT_URLS[1] (json)", "not accepted or not reached")


@pytest.mark.parametrize(
    "address", ["postgresql://dagster:pa/hunter22@db/x", "https://hunter22@host/a", "amqp://u:p@hunter22@host"]
)
def test_what_others_say_with_a_password_in_an_address_is_shown_without_it(address: str) -> None:
    outcome = ProbeOutcome(machine.code, "", [ProbeFinding("error", "a", f"cannot connect to {address} at 10:00")])
    report = DoctorReport([outcome], 0.0)
    for shown in (report.text(), report.json()):
        assert "hunter22" not in shown and "://…@" in shown and "at 10:00" in shown


def test_libraries_that_do_not_import_are_found_by_the_probes_that_need_them(tmp_path: Path) -> None:
    for part in ("landing", "models"):
        shutil.copytree(PROJECT / "data/customer_churn" / part, tmp_path / "customer_churn" / part)
    hidden = "import sys; sys.modules.update({'pandera.pandas': None, 'safetensors.torch': None})\n"
    command = "from batch_scoring.cli.main import main; sys.exit(main(['doctor', 'customer_churn', '--json']))"
    environment = os.environ | {"BATCH_SCORING_DATA": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", hidden + command], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    found = {finding["probe"]: finding["found"] for finding in json.loads(done.stdout)["findings"]}
    assert "pandera.pandas" in found["newest landing file"] and "safetensors.torch" in found["model bundle"]


def test_an_import_that_fails_within_a_probe_names_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    @probe.probe("importing")
    def imports(_site: Site) -> Iterator[ProbeFinding]:
        """Something is so."""
        import_module("no_such_library")
        yield from ()

    monkeypatch.setattr(run_probes, "OF_DEPLOYMENT", (imports,))
    told(run_probes.look([]), "error", "importing", "a library does not import", "no_such_library", "-m pip check")


def test_a_checkout_that_is_not_the_code_that_runs(
    deployed: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other" / "batch_scoring").mkdir(parents=True)
    (tmp_path / "other" / "batch_scoring" / "definitions.py").touch()
    monkeypatch.chdir(tmp_path / "other")
    told(deployed.look(), "warning", "code", str(tmp_path / "other"), str(PROJECT), "--editable")


@pytest.mark.parametrize(("ahead", "word"), [(60, "60 s ahead of"), (-60, "60 s behind")])
def test_a_clock_that_differs_from_that_of_the_disk(
    deployed: Clinic, monkeypatch: pytest.MonkeyPatch, ahead: float, word: str
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)
    (finding,) = stores.clock.look(deployed.tiny.pipeline)
    assert finding.severity == "warning" and word in finding.found and "chronyc" in finding.remedy


# the command


def test_a_probe_that_raises_and_one_that_hangs_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    @probe.probe("raising")
    def raises(_site: Site) -> Iterator[ProbeFinding]:
        """Something is so."""
        raise KeyError(os.environ["ALERT_URLS"], os.environ["AWS_SECRET_ACCESS_KEY"], "http://me:hunter33@proxy/x")

    @probe.probe("hanging", seconds=0.2)
    def hangs(_site: Site) -> Iterator[ProbeFinding]:
        """The other is so."""
        yield ProbeFinding("warning", "here", "found before")
        release.wait()

    monkeypatch.setattr(run_probes, "OF_DEPLOYMENT", (raises, hangs))
    monkeypatch.setenv("ALERT_URLS", "json://user:hunter11@127.0.0.1/hook")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22")
    try:
        report = run_probes.look([])
    finally:
        release.set()
    assert findings(report) == [("error", "raising"), ("error", "hanging"), ("warning", "hanging")]
    assert "KeyError: ('…', '…', 'http://…@proxy/x')" in report.text() and "no answer within 0.2 s" in report.text()
    assert "hunter" not in report.text() + report.json()


def test_no_pipeline_of_that_name() -> None:
    with pytest.raises(
        UnknownPipelineError, match="no pipeline 'flights'; known pipelines: customer_churn, flight_delay"
    ):
        run_probes.doctor(["flight_delay", "flights"], io.StringIO())


def test_every_probe_is_in_a_list_once_and_says_what_is_so() -> None:
    probes = [*run_probes.OF_DEPLOYMENT, *run_probes.OF_PIPELINE]
    declared = [
        value
        for module in (run_probes.cloud, run_probes.commits, run_probes.inputs, run_probes.instance, machine, stores)
        for value in vars(module).values()
        if isinstance(value, probe.Probe)
    ]
    assert {one.name for one in declared} == {one.name for one in probes}
    assert len({one.name for one in probes}) == len(probes)
    assert all((one.states and one.states[0].isupper()) or one.states.startswith("dagster") for one in probes)


def doctor(cwd: Path, *arguments: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    cleaned = {name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "ALERT_URLS")}
    return subprocess.run(
        [str(BIN / "batch-scoring"), "doctor", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=cleaned | (environment or {}),
    )


def test_a_fresh_checkout_is_well_within_ten_seconds(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
    for part in ("landing", "models"):
        for name in ("flight_delay", "customer_churn"):
            shutil.copytree(PROJECT / "data" / name / part, tmp_path / "data" / name / part)
    before = sorted(tmp_path.rglob("*"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = doctor(tmp_path, "--json", environment={"BATCH_SCORING_DATA": str(tmp_path / "data")})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert set(said) == {"format", "healthy", "errors", "warnings", "seconds", "probes", "findings"}
    assert (said["format"], said["healthy"], said["errors"], said["warnings"]) == (1, True, 0, 0)
    assert {one["status"] for one in said["probes"]} == {"ok"} and len(said["probes"]) > 30
    assert all(one["severity"] == "info" for one in said["findings"])
    assert after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime < 10, "of processor; nothing waits here"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_data_root_that_is_none_and_exit_codes(
    deployed: Clinic, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "nobody"]) == 2
    monkeypatch.setenv("BATCH_SCORING_DATA", "ftp://somewhere")
    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert "'ftp://somewhere'; expected a folder or s3://bucket/prefix" in said.out
    assert said.err == "batch-scoring: no pipeline 'nobody'; known pipelines: customer_churn, flight_delay\n"
