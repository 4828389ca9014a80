"""Receivers of alerts, and one tick of the sensor that sends them."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.operations.alerting import collector
from batch_scoring_tests.receivers import LOG, MailServer, Told, WebServer
from batch_scoring_tests.tiny import TinyProject, normalised


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


@pytest.fixture
def told(
    instance: dg.DagsterInstance, tiny: TinyProject, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Told:
    """One tick; its messages, which go to the log as there is no channel."""
    monkeypatch.setenv("DAGSTER_UI_URL", "http://ui/")

    def look(*pipelines: Pipeline) -> list[str]:
        caplog.clear()
        collector.tick(instance, pipelines or [tiny.pipeline], LOG)
        return [normalised(r.getMessage()) for r in caplog.records if (r.name, r.levelname) == ("tick", "WARNING")]

    return look


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.stop()


@pytest.fixture
def mail() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.stop()
