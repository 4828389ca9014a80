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
    assert heartbeats.are_known()
    try:
        assert heartbeats.read() == {}, "it never ran"
        now = time.time()
        with dg.DagsterInstance.get() as instance:
            for kind in ("SENSOR", "SCHEDULER", "OF_ANOTHER_VERSION"):
                instance.add_daemon_heartbeat(DaemonHeartbeat(now - 100, kind, "id", None))
        assert heartbeats.read() == {"SENSOR": pytest.approx(now - 100), "SCHEDULER": pytest.approx(now - 100)}
    finally:
        heartbeats._opened.cache_clear()


def test_a_folder_without_settings_is_no_instance_and_stays_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    assert not heartbeats.are_known()
    assert not list(tmp_path.iterdir())


def test_settings_that_only_a_pod_with_rights_can_use_do_not_hide_the_heartbeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher of Kubernetes asks for the service account's token when it is created, for which monitoring asks."""
    launcher = "run_launcher: {module: dagster_k8s, class: K8sRunLauncher, config: {service_account_name: a}}\n"
    (tmp_path / "dagster.yaml").write_text(launcher + "run_monitoring: {enabled: true}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    heartbeats._opened.cache_clear()
    try:
        with dg.DagsterInstance.get() as instance:
            instance.add_daemon_heartbeat(DaemonHeartbeat(12.5, "SENSOR", "id", None))
        assert heartbeats.read() == {"SENSOR": 12.5}
    finally:
        heartbeats._opened.cache_clear()
