"""The page is put beside the other reports, and fails no night."""

import pytest

from batch_scoring.defs.assets import decisions
from batch_scoring.delivery.day_page.publish import publish
from batch_scoring_tests.delivery.day_page.conftest import DAYS
from batch_scoring_tests.tiny import TinyProject


def test_it_stands_in_the_reports_of_its_day_and_is_linked(decided: TinyProject) -> None:
    path = f"reports/dt={DAYS[1]}/day.html"
    drawn = decided.pipeline.output.read(path)
    assert publish(decided.pipeline, DAYS[1]) == path
    assert decided.pipeline.output.read(path) == drawn
    (event,) = [event for event in decided.run(DAYS[1]).get_asset_materialization_events() if "decisions" in str(event)]
    assert str(event.materialization.metadata["page"].value).endswith(path)


def test_a_page_that_cannot_be_drawn_fails_nothing(decided: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    decided.pipeline.output.remove(f"reports/dt={DAYS[1]}/day.html")
    monkeypatch.setattr(decisions, "publish", fail)
    result = decided.run(DAYS[1])
    assert result.success
    assert decided.pipeline.output.list(f"reports/dt={DAYS[1]}/day.html") == []
