"""The exporter's process."""

import io
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batch_scoring.cli.main import main
from batch_scoring.cli.metrics import run
from batch_scoring.config.loader import PROJECT
from batch_scoring.metrics import cloudwatch
from batch_scoring.metrics.catalogue import METRICS, NEWEST_DAY, STATE_READABLE, Sample
from batch_scoring.storage.state import DayInput, State
from batch_scoring_tests.reliability.store import Store

BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with models and no day; no Dagster instance."""
    root = tmp_path / "data"
    for name in ("customer_churn", "flight_delay", "support_tickets"):
        shutil.copytree(PROJECT / "data" / name / "models", root / name / "models")
    monkeypatch.setenv("BATCH_SCORING_DATA", str(root))
    monkeypatch.chdir(tmp_path)
    return root


def read(text: str) -> dict[tuple[str, str], float]:
    """Values by metric and pipeline."""
    families = text_string_to_metric_families(text)
    return {(one.name, one.labels.get("pipeline", "")): one.value for family in families for one in family.samples}


def test_once_prints_what_prometheus_reads(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "--once"]) == 0
    said = capsys.readouterr()
    found = read(said.out)
    assert {name for name, _ in found} <= {metric.full_name for metric in METRICS}
    assert found["batch_scoring_state_readable", "flight_delay"] == 1
    assert said.err == ""
    assert {path.name for path in data.glob("*/*")} == {"models"}, "nothing is written"


def test_a_broken_pipeline_is_told_with_its_error(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(data / "flight_delay")
    assert main(["metrics", "--once"]) == 1
    said = capsys.readouterr()
    assert read(said.out)["batch_scoring_pipeline_broken", "flight_delay"] == 1
    assert "UTC: flight_delay is left out of the deployment: " in said.err and "bundle.json" in said.err


def test_a_textfile_is_replaced_as_a_whole_and_readable_by_others(tmp_path: Path) -> None:
    file, out = tmp_path / "scoring.prom", io.StringIO()
    file.write_text("old")
    assert run.once(file, "", out, out) == 0
    assert ("batch_scoring_state_readable", "customer_churn") in read(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert {path.name for path in tmp_path.iterdir()} == {"data", "scoring.prom"}
    assert out.getvalue() == ""


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    errors = io.StringIO()
    assert run.once(tmp_path / "none" / "scoring.prom", "", io.StringIO(), errors) == 1
    assert f"cannot write {tmp_path}/none/scoring.prom: No such file or directory\n" in errors.getvalue()


def test_whatever_an_output_raises_is_said_and_the_next_round_goes_on() -> None:
    errors = io.StringIO()
    assert not run.Exporter(errors).attempt("send", lambda: 1 // 0)
    assert errors.getvalue().endswith("UTC: cannot send: ZeroDivisionError: integer division or modulo by zero\n")


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "scoring.prom"
    file.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(OSError, match="File too large"):
            run.write(file, b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "scoring.prom"}


@pytest.mark.s3
def test_once_sends_to_cloudwatch_and_says_how_many(store: Store) -> None:
    out = io.StringIO()
    assert run.once(None, "Scoring", out, out) == 0
    assert "0 metrics sent to CloudWatch, namespace Scoring: no day is scored yet" in out.getvalue()


def test_without_a_region_cloudwatch_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    errors = io.StringIO()
    day = [Sample(STATE_READABLE, ("churn",), 1), Sample(NEWEST_DAY, ("churn",), 0)]
    assert not run.Exporter(errors).attempt("send", lambda: cloudwatch.send("Scoring", day, datetime.now(UTC)))
    assert errors.getvalue().endswith(
        "UTC: cannot send: CloudWatch, namespace Scoring: no AWS region; set AWS_REGION\n"
    )


def test_what_cannot_be_read_is_said_once_and_when_it_is_read_again(data: Path) -> None:
    errors = io.StringIO()
    exporter = run.Exporter(errors)
    place = Path(next(one.output.uri for one in exporter._survey.valid if one.name == "flight_delay"))
    state = place / "state"
    place.mkdir(parents=True, exist_ok=True)
    state.write_text("a file where a folder belongs")
    for _ in range(3):
        exporter.samples()
    assert exporter.has_errors
    assert len(errors.getvalue().splitlines()) == 1, errors.getvalue()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: flight_delay cannot be read: ", errors.getvalue())
    state.unlink()
    exporter.samples()
    assert errors.getvalue().splitlines()[1].endswith("UTC: flight_delay is read again")
    assert not exporter.has_errors


def test_a_process_serves_writes_and_ends_with_ctrl_c(tmp_path: Path, data: Path) -> None:
    command = [str(BIN / "batch-scoring"), "metrics", "--port", "0", "--textfile", "scoring.prom"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as process, ExitStack() as stack:
        assert process.stdout
        stack.callback(process.kill)
        said = [process.stdout.readline() for _ in range(3)]
        address = re.search(r"serving (http://127.0.0.1:\d+/metrics)", said[1])
        assert address, said
        assert said[2] == "pipelines: customer_churn, flight_delay, support_tickets; end with Ctrl-C\n"

        def scrape() -> dict[tuple[str, str], float]:
            with urllib.request.urlopen(address[1], timeout=20) as answer:
                return read(answer.read().decode())

        assert ("batch_scoring_in_progress_since_timestamp_seconds", "flight_delay") not in scrape()
        at = datetime.now(UTC)
        output = next(one.output for one in run.survey_pipelines().valid if one.name == "flight_delay")
        State(output).put_day_input(DayInput(day="2013-07-01", fingerprint="f", files=(), run_id="r", pinned_at=at))
        assert scrape()["batch_scoring_in_progress_since_timestamp_seconds", "flight_delay"] == at.timestamp()
        until = time.monotonic() + 20
        while not (tmp_path / "scoring.prom").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert ("batch_scoring_state_readable", "flight_delay") in read((tmp_path / "scoring.prom").read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr and "Traceback" not in process.stderr.read()


def test_a_taken_port_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["metrics", "--port", str(port)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"127.0.0.1 port {port}: Address already in use; end what listens there" in said


def test_an_address_of_another_machine_is_refused_without_advice_about_ports(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["metrics", "--host", "192.0.2.1", "--port", "0"]) == 2
    assert capsys.readouterr().err.endswith("192.0.2.1 port 0: Cannot assign requested address\n")
