"""Scenarios of `python -m batch_scoring_tests.reliability`, with a small count; a long log is the command's alone."""

from pathlib import Path

import pytest

from batch_scoring_tests.reliability import scenarios
from batch_scoring_tests.reliability.store import Store

pytestmark = pytest.mark.slow


def test_a_killed_run_leaves_old_or_new_rows_and_the_next_run_goes_on_from_its_shards(folder: Path) -> None:
    report = scenarios.killed(folder, 2)
    assert report.violations == []
    assert report.reused > 0
    assert "2 dead runs" in report.notes


def test_two_processes_on_one_day_never_double_a_row_and_the_newer_input_ends_on_top(folder: Path) -> None:
    assert scenarios.raced(folder, 2).violations == []


def test_all_days_land_when_many_processes_rescore_them_on_disk(folder: Path) -> None:
    assert scenarios.rescored(folder, 4, 3).violations == []


@pytest.mark.s3
def test_all_days_land_when_many_processes_rescore_them_on_s3(folder: Path, store: Store) -> None:
    assert scenarios.rescored(folder, 2, 3, store).violations == []


@pytest.mark.s3
def test_nothing_is_lost_or_doubled_when_s3_fails(folder: Path, store: Store) -> None:
    assert scenarios.faulted(folder, store, names=["all at once"]).violations == []


def test_short_processes_end_with_0_on_disk(folder: Path) -> None:
    assert scenarios.ended(folder, 1).violations == []


@pytest.mark.s3
def test_short_processes_end_with_0_on_s3(folder: Path, store: Store) -> None:
    assert scenarios.ended(folder, 1, store).violations == []
