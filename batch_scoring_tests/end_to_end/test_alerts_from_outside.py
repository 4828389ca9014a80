"""From the state to whoever is told: exporter, Prometheus, Alertmanager and receiver, all of them real.

The configuration is that of `deploy/monitoring/`, with intervals of a second in place of minutes.
"""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch_scoring.config.loader import PROJECT, load_pipelines
from batch_scoring.metrics.watchers.alert_rules import LONGEST_SECONDS, rule_file
from batch_scoring.metrics.watchers.deployment import FOLDER, RULES
from batch_scoring.storage.state import DayInput, FailureRecord, State
from batch_scoring_tests.monitoring_servers import (
    Prometheus,
    answers,
    needs,
    prometheus_settings,
    running_alertmanager,
    running_prometheus,
    until,
)
from batch_scoring_tests.receivers import WebServer
from batch_scoring_tests.redis_process import free_port

STUCK, FAILED = "customer_churn", "flight_delay"
EXPECTED = {("BatchScoringDayStuck", STUCK), ("BatchScoringDayFailed", FAILED)}
WITHIN = 30
"""Seconds within which both are told; it takes about three."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data root with models and no day."""
    for name in (STUCK, FAILED, "support_tickets"):
        shutil.copytree(PROJECT / "data" / name / "models", tmp_path / "data" / name / "models")
    return tmp_path / "data"


@pytest.mark.slow
@needs("prometheus")
@needs("prometheus-alertmanager")
def test_a_stuck_day_and_a_failed_one_are_each_told_once(data: Path, tmp_path: Path, receiver: WebServer) -> None:
    port = free_port()
    with watchers(tmp_path, port, receiver) as prometheus:

        def is_scraped() -> bool:
            return bool(prometheus.query('up{job="batch-scoring"} == 1'))

        with exporter(data, port):
            until(is_scraped, WITHIN, "the exporter is scraped")
            assert not told(receiver)

            becomes_late, fails = stick(data), fail(data)
            late = until(lambda: told_at(receiver, STUCK), WITHIN, "the stuck day is told") - becomes_late
            failed = until(lambda: told_at(receiver, FAILED), WITHIN, "the failed day is told") - fails
            print(f"told after {late:.1f} s (in progress for an hour) and {failed:.1f} s (failed)")  # noqa: T201

        until(lambda: not is_scraped(), WITHIN, "scrapes are lost")
        with exporter(data, port):
            until(is_scraped, WITHIN, "the exporter is scraped again")
            time.sleep(3)  # rules are evaluated three times, and alerts grouped: none may be told again

    assert told(receiver) == dict.fromkeys(EXPECTED, 1)
    for post in receiver.posts:
        assert_message(post)


@pytest.fixture
def receiver() -> Iterator[WebServer]:
    """Who is told."""
    server = WebServer()
    yield server
    server.stop()


@contextmanager
def watchers(folder: Path, port: int, receiver: WebServer) -> Iterator[Prometheus]:
    """Prometheus with the rules, which scrapes a port, and an Alertmanager, which tells the receiver."""
    (folder / RULES).write_text(yaml.safe_dump(impatient_rules()))
    settings = prometheus_settings(folder, FOLDER / "prometheus.yml", port)
    with running_alertmanager(folder, alertmanager_settings(receiver.port)) as alertmanager:
        targets = [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]
        with running_prometheus(folder, settings | {"alerting": {"alertmanagers": targets}}) as prometheus:
            yield prometheus


def stick(data: Path) -> float:
    """A day whose input is pinned, and of which nothing more is heard; return when an hour has passed since."""
    late = datetime.now(UTC) + timedelta(seconds=1)
    pin(data, STUCK, "2024-01-02", late - timedelta(seconds=LONGEST_SECONDS))
    return late.timestamp()


def fail(data: Path) -> float:
    """A day whose run fails; return when."""
    now = datetime.now(UTC)
    pin(data, FAILED, "2013-07-02", now - timedelta(minutes=5))
    failure = FailureRecord(
        run_id="a-run",
        day="2013-07-02",
        step="predictions",
        failure_class="bad_model",
        at=now,
        message="scores are not finite",
    )
    state(data, FAILED).put_failure(failure)
    return now.timestamp()


def pin(data: Path, pipeline: str, day: str, at: datetime) -> None:
    pinned = DayInput(day=day, fingerprint="0", files=(), run_id="a-run", pinned_at=at)
    state(data, pipeline).put_day_input(pinned)


def state(data: Path, name: str) -> State:
    found = load_pipelines(PROJECT / "batch_scoring/pipelines", str(data))
    return State(next(pipeline for pipeline in found if pipeline.name == name).output)


@contextmanager
def exporter(data: Path, port: int) -> Iterator[None]:
    """The command, until it is killed."""
    command = [sys.executable, "-m", "batch_scoring", "metrics", "--port", str(port)]
    environment = os.environ | {"BATCH_SCORING_DATA": str(data)}
    process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/metrics"), 60, "the exporter answers")
        yield
    finally:
        process.kill()
        process.wait()


def impatient_rules() -> dict[str, Any]:
    """The rules, with a second in place of the hour for which a failed day waits to be scored by a later run."""
    rules = rule_file()
    for rule in [rule for group in rules["groups"] for rule in group["rules"]]:
        if rule["alert"] == "BatchScoringDayFailed":
            rule["for"] = "1s"
    return rules


def alertmanager_settings(port: int) -> dict[str, Any]:
    """The example, with a receiver on this machine."""
    settings: dict[str, Any] = yaml.safe_load((FOLDER / "alertmanager.yml").read_text("utf-8"))
    settings["route"] |= {"group_wait": "100ms", "group_interval": "1s"}
    [receiver] = settings["receivers"]
    [webhook] = receiver["webhook_configs"]
    webhook["url"] = f"http://127.0.0.1:{port}/alerts"
    return settings


def alerts(receiver: WebServer) -> list[dict[str, Any]]:
    """Every alert that was told to be firing, as often as it was."""
    return [alert for post in receiver.posts for alert in post["alerts"] if alert["status"] == "firing"]


def told(receiver: WebServer) -> dict[tuple[str, str], int]:
    return Counter((alert["labels"]["alertname"], alert["labels"].get("pipeline", "")) for alert in alerts(receiver))


def told_at(receiver: WebServer, pipeline: str) -> float:
    """The time, once an alert of the pipeline has arrived."""
    return time.time() if any(alert["labels"].get("pipeline") == pipeline for alert in alerts(receiver)) else 0.0


def assert_message(post: dict[str, Any]) -> None:
    """One alert, whose texts name the pipeline and a command."""
    [alert] = post["alerts"]
    pipeline, texts = alert["labels"]["pipeline"], alert["annotations"]
    assert texts["summary"].startswith(f"{pipeline}: ")
    assert f"`batch-scoring backfill {pipeline} " in texts["description"]
    assert "{{" not in str(texts) and "no value" not in str(texts)
