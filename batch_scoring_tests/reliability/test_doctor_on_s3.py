"""Broken set-ups on S3 and SQS: for each the right finding, in time, and no probe object stays."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_scoring.cli.doctor import stores
from batch_scoring.cli.doctor.report import DoctorReport
from batch_scoring_tests.broken_sites import Clinic, findings, told
from batch_scoring_tests.reliability.proxy import Fault
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import DAY, TinyProject

pytestmark = pytest.mark.s3


@pytest.fixture
def tmp_path(on_disk: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=on_disk))


@pytest.fixture
def clinic(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    """A site in a bucket of its own, with a file that has landed; nothing of doctor's is left in the bucket."""
    bucket = store.new_bucket()
    clinic = Clinic(tmp_path, TinyProject(tmp_path / "project", f"s3://{bucket}/data"))
    monkeypatch.setenv("DAGSTER_HOME", str(clinic.home))
    clinic.tiny.land(DAY, clinic.tiny.rows(64))
    yield clinic
    left = store.client_of_moto().list_objects_v2(Bucket=bucket)["Contents"]
    assert [item["Key"] for item in left if "doctor" in item["Key"]] == []


def queue_in(store: Store, clinic: Clinic, **attributes: str) -> str:
    """A new queue, which the pipeline's spec names."""
    url: str = store.client_of_moto("sqs").create_queue(QueueName=store.new_bucket(), Attributes=attributes)["QueueUrl"]
    url = url.replace(f"http://127.0.0.1:{store.port}", store.proxy.url)
    clinic.tiny.spec["events"] = {"queue": url}
    clinic.tiny.write_spec()
    return url


def skipped(report: DoctorReport) -> int:
    return sum(bool(outcome.skipped) for outcome in report.outcomes)


def test_a_bucket_a_queue_and_credentials_in_order_are_well(store: Store, clinic: Clinic) -> None:
    queue_in(store, clinic)
    report = clinic.look()
    assert findings(report) == [] and skipped(report) == 0, report.text()
    assert "AWS identity: AWS identity" in report.text() and "arn:aws:" in report.text()


def test_a_store_that_does_not_know_conditional_writes(store: Store, clinic: Clinic) -> None:
    store.proxy.dropped = {"if-none-match"}
    told(clinic.look(), "error", "conditional writes", "answered with 200 and 200", "MinIO", clinic.tiny.name)


@pytest.mark.parametrize(("ahead", "severity"), [(120.0, "warning"), (-3600.0, "error")])
def test_a_clock_that_differs_from_the_stores(store: Store, clinic: Clinic, ahead: float, severity: str) -> None:
    store.proxy.clock_ahead = ahead
    told(clinic.look(), severity, "clock", "behind" if ahead > 0 else "ahead of", "chronyc")


def test_a_store_that_nobody_listens_for_is_one_finding_within_seconds(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    began = time.monotonic()
    report = clinic.look()
    told(report, "error", "landing folder", "AWS endpoint", f"http://127.0.0.1:{port}", "AWS_ENDPOINT_URL")
    assert skipped(report) > 5 and time.monotonic() - began < 20


def test_a_store_that_takes_the_connection_and_never_answers_is_one_finding(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        report = clinic.look()
        told(report, "error", "landing folder", "AWS endpoint", "Read timeout")
        assert time.monotonic() - began < 20


def test_a_bucket_that_is_not_there(store: Store, clinic: Clinic) -> None:
    clinic.tiny.spec["output"] = "s3://nobodys-bucket/x"
    clinic.tiny.write_spec()
    told(clinic.look(), "error", "output folder", "s3://nobodys-bucket", "there is no such bucket", "create it")


def test_credentials_that_are_refused(store: Store, clinic: Clinic) -> None:
    store.proxy.faults = [Fault("403")]
    report = clinic.look()
    assert {severity for severity, _ in findings(report)} == {"error"}
    assert {probe for _, probe in findings(report)} == {"landing folder", "output folder", "bundle folder"}
    assert "access denied" in report.text() and "allow s3:ListBucket" in report.text()


def test_a_bucket_that_may_be_read_and_not_written(store: Store, clinic: Clinic) -> None:
    store.proxy.faults = [Fault("403", on=r"^PUT ")]
    told(clinic.look(), "error", "writable", "access denied", "s3:PutObject")


def test_no_credentials(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    report = clinic.look()
    assert ("error", "AWS identity") in findings(report), report.text()
    assert "AWS_ACCESS_KEY_ID" in report.text()


def test_a_queue_that_is_not_there(store: Store, clinic: Clinic) -> None:
    clinic.tiny.spec["events"] = {"queue": f"{store.proxy.url}/123456789012/nobodys"}
    clinic.tiny.write_spec()
    told(clinic.look(), "error", "queue", "there is no such queue", "events.queue")


def test_a_queue_that_forgets_within_minutes(store: Store, clinic: Clinic) -> None:
    queue_in(store, clinic, MessageRetentionPeriod="600")
    told(clinic.look(), "warning", "queue", "messages are kept for 0:10:00", "set-queue-attributes")


def test_interrupted_while_a_probe_object_is_there_it_is_taken_away(store: Store, clinic: Clinic) -> None:
    """The fixture looks at the bucket in the end."""
    store.proxy.faults = [Fault("delay", on=r"^GET .*batch_scoring_doctor", seconds=1.5)]
    code = (
        "import sys, batch_scoring.pipelines as p; from pathlib import Path\n"
        "from batch_scoring.runtime import signals; signals.watch('batch-scoring')\n"
        "from batch_scoring.cli.doctor import all_probes; from batch_scoring.config.loader import survey_pipelines\n"
        "places, root = sys.argv[1:]; p.__path__.append(places)\n"
        "all_probes.survey_pipelines = lambda: survey_pipelines(Path(places), root)\n"
        "sys.exit(all_probes.doctor([], sys.stdout))\n"
    )
    arguments = [sys.executable, "-c", code, str(clinic.tiny.packages), clinic.tiny.data_root]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)) as process:
        deadline = time.monotonic() + 60
        while not store.proxy.faults[0].hits and time.monotonic() < deadline:
            time.sleep(0.02)
        keys = store.client_of_moto().list_objects_v2(Bucket=clinic.tiny.data_root.split("/")[2])["Contents"]
        assert any(stores.new_name()[:20] in item["Key"] for item in keys), "it is there"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert b"interrupted; no probe file is left" in errors and b"Traceback" not in errors
