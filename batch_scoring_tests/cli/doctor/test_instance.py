"""Instances that are broken: for each the right finding, and nothing else."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.events import EngineEventData
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo

from batch_scoring.config import names
from batch_scoring.config.loader import PROJECT
from batch_scoring.operations.alerting import channels
from batch_scoring.operations.alerting.channels import Message
from batch_scoring.operations.alerting.outbox import Outbox
from batch_scoring_tests.broken_sites import Clinic, findings, told
from batch_scoring_tests.operations.automation.test_sensor_status import Sensor

BIN = Path(sys.executable).parent


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
    told(
        deployed.look(),
        "error",
        "daemon",
        "no heartbeat since",
        "nothing is scored automatically",
        "make dev",
        "works without",
    )


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
    words = f"Error occurred during the execution of evaluation_fn for sensor {names.broken_name('half_made')}\n"
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


def test_a_message_that_a_channel_has_refused(deployed: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_URLS", "json://127.0.0.1:1/hook")
    with deployed.instance() as instance:
        outbox = Outbox(instance.daemon_cursor_storage, channels.parse("json://127.0.0.1:1/hook"))
        outbox.put([Message(topic="t", title="t", body="b", kind="info")], "")
        outbox.deliver(5)
    told(deployed.look(), "warning", "waiting alerts", "1 wait for ALERT_URLS[1] (json)", "not accepted or not reached")
