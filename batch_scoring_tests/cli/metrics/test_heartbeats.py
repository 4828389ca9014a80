"""Heartbeats of the daemon, from an instance that holds some."""

import shutil
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from batch_scoring.cli.metrics import heartbeats
from batch_scoring.config.loader import PROJECT


def test_the_needed_parts_of_the_daemon_are_told_with_their_last_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    heartbeats._opened.cache_clear()
    try:
        assert heartbeats.read() == {}, "it never ran"
        now = time.time()
        with dg.DagsterInstance.get() as instance:
            for kind in ("SENSOR", "SCHEDULER", "OF_ANOTHER_VERSION"):
                instance.add_daemon_heartbeat(DaemonHeartbeat(now - 100, kind, "id", None))
        assert heartbeats.read() == {"SENSOR": pytest.approx(now - 100), "SCHEDULER": pytest.approx(now - 100)}
    finally:
        heartbeats._opened.cache_clear()
