"""`batch-scoring doctor` as typed: its report, its time and its exit codes."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from batch_scoring.cli.main import main
from batch_scoring.config.loader import PROJECT
from batch_scoring_tests.broken_sites import Clinic

BIN = Path(sys.executable).parent


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
        for name in ("flight_delay", "customer_churn", "support_tickets"):
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
    known = "customer_churn, flight_delay, support_tickets"
    assert said.err == f"batch-scoring: no pipeline 'nobody'; known pipelines: {known}\n"
