"""Disks that cannot be written as a run does, and clocks that differ."""

import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_scoring.cli.doctor import stores
from batch_scoring_tests.broken_sites import IN_MEMORY, Clinic, findings, told, without_hard_links


def test_a_disk_that_has_become_read_only(on_small_disk: Callable[[str], Clinic], tmp_path: Path) -> None:
    clinic = on_small_disk("size=600m")
    subprocess.run(["mount", "-o", "remount,ro", tmp_path / "disk"], check=True)
    report = clinic.look()
    assert findings(report) == [("error", "writable"), IN_MEMORY], report.text()
    assert "Read-only file system" in report.text() and "mount -o remount,rw" in report.text()
    assert "it is in memory (tmpfs): tables and state are gone" in report.text()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the system calls are x86_64's")
def test_a_folder_without_hard_links(deployed: Clinic) -> None:
    report = without_hard_links(deployed.look)
    told(report, "error", "hard links", "it does not support hard links: Operation not permitted", "BATCH_SCORING_DATA")


@pytest.mark.parametrize(("ahead", "word"), [(60, "60 s ahead of"), (-60, "60 s behind")])
def test_a_clock_that_differs_from_that_of_the_disk(
    deployed: Clinic, monkeypatch: pytest.MonkeyPatch, ahead: float, word: str
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)
    (finding,) = stores.clock.look(deployed.tiny.pipeline)
    assert finding.severity == "warning" and word in finding.found and "chronyc" in finding.remedy
