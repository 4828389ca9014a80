"""Failures that are provoked under a real daemon, a few of each kind; the command has all."""

from pathlib import Path

import pytest

from batch_scoring_tests.reliability import failing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_each_failure_has_its_class_its_tries_its_alert_and_leaves_the_day_as_it_should(folder: Path) -> None:
    report = failing.failing(folder, None, failing.QUICK)
    assert report.violations == [], report.notes
