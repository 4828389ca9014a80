"""A machine without room, with a checkout of its own, or with channels that take nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_scoring.config.loader import PROJECT
from batch_scoring_tests.broken_sites import IN_MEMORY, Clinic, findings, told


@pytest.mark.parametrize(
    ("options", "severity", "says"),
    [
        ("size=4m", "error", "MiB free"),
        ("size=300m", "warning", "300 MiB free"),
        ("size=600m,nr_inodes=100", "error", "inodes free"),
    ],
)
def test_a_disk_that_is_nearly_full(
    on_small_disk: Callable[[str], Clinic], options: str, severity: str, says: str
) -> None:
    report = on_small_disk(options).look()
    assert sorted(findings(report)) == sorted([(severity, "disk"), IN_MEMORY]), report.text()
    assert says in report.text().replace("299 MiB", "300 MiB")


def test_a_dagster_home_in_memory(
    deployed: Clinic, disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = disk("size=600m")
    shutil.copy(deployed.home / "dagster.yaml", place)
    monkeypatch.setenv("DAGSTER_HOME", str(place))
    told(deployed.look(), "warning", "lasting instance", str(place), "waiting alerts are gone", "DAGSTER_HOME")


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


def test_a_checkout_that_is_not_the_code_that_runs(
    deployed: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other" / "batch_scoring").mkdir(parents=True)
    (tmp_path / "other" / "batch_scoring" / "definitions.py").touch()
    monkeypatch.chdir(tmp_path / "other")
    told(deployed.look(), "warning", "code", str(tmp_path / "other"), str(PROJECT), "--editable")
