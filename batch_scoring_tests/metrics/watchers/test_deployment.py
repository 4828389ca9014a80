"""Tests of `deploy/monitoring/`: its files are those that the code makes, and its examples are valid."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch_scoring.metrics.watchers import deployment
from batch_scoring.metrics.watchers.alert_rules import ALERTS, DAYS, DEPLOYMENT, EXPORTS, ROWS
from batch_scoring.metrics.watchers.promql import JOB
from batch_scoring_tests.monitoring_servers import needs

FOLDER = deployment.FOLDER
BY_HAND = {"README.md", "alertmanager.yml", "prometheus.yml"}


@pytest.mark.parametrize(("name", "text"), [*deployment.files()], ids=lambda value: value if len(value) < 30 else "")
def test_the_committed_files_are_current(name: str, text: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == text, "run `make monitoring`"


def test_the_folder_holds_nothing_else() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {name for name, _ in deployment.files()} | BY_HAND


def test_the_command_writes_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment, "FOLDER", tmp_path / "monitoring")
    deployment.main()
    assert {path.name for path in (tmp_path / "monitoring").iterdir()} == {name for name, _ in deployment.files()}


def test_expressions_of_several_lines_are_written_as_such() -> None:
    rules = dict(deployment.files())[deployment.RULES]
    assert "expr: |-\n" in rules
    assert [rule["expr"] for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]] == [
        alert.expression for alert in ALERTS
    ]


@needs("promtool")
def test_the_example_for_prometheus_is_valid() -> None:
    command = ["promtool", "check", "config", "prometheus.yml"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout
    assert [job["job_name"] for job in example("prometheus.yml")["scrape_configs"]] == [JOB]


@needs("amtool")
def test_the_example_for_alertmanager_is_valid() -> None:
    command = ["amtool", "check-config", "alertmanager.yml"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_about_days_are_held_back_while_the_state_of_their_pipeline_is_unknown() -> None:
    [of_state, _] = example("alertmanager.yml")["inhibit_rules"]
    [held_back] = [re.fullmatch(r'alertname =~ "(.*)"', matcher)[1] for matcher in of_state["target_matchers"]]
    about_days = {alert.name for alert in (*DAYS, *ROWS, *EXPORTS)}
    assert {alert.name for alert in ALERTS if re.fullmatch(held_back, alert.name)} == about_days
    [causes] = [re.fullmatch(r'alertname =~ "(.*)"', matcher)[1] for matcher in of_state["source_matchers"]]
    assert {*causes.split("|")} <= {alert.name for alert in DEPLOYMENT}


def example(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text("utf-8"))
    return content
