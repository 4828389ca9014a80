"""The scenarios with a real daemon, with small counts."""

from pathlib import Path

import pytest

from batch_scoring_tests.reliability import triggered
from batch_scoring_tests.reliability.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.s3
def test_uploads_while_runs_are_on_become_scored_days_by_listing_and_by_a_queue(folder: Path, store: Store) -> None:
    report = triggered.uploaded(folder, store, routes=["sns"], count=2)
    assert report.violations == [], report.notes


def test_a_backfill_outlives_its_run_its_code_server_and_its_daemon(folder: Path) -> None:
    report = triggered.killed_in_turn(folder, 5)
    assert report.violations == [], report.notes
    assert report.trials >= 2
