"""The asset report: its months, and the page that it writes."""

from datetime import UTC, date, datetime
from pathlib import Path

from batch_scoring.defs.assets.report import months
from batch_scoring.monitoring.report.month import gather
from batch_scoring_tests.month_pages import FINE, MONTH, draw, page
from batch_scoring_tests.tiny import TinyProject


def test_the_current_month_can_be_drawn(tiny: TinyProject) -> None:
    key = months(tiny.pipeline).get_last_partition_key()
    assert key == str(datetime.now(UTC).date().replace(day=1))
    assert draw(tiny, key)["days_missing"] == datetime.now(UTC).day - 1
    assert "has been run" in page(tiny, f"reports/month={key[:7]}.html")


def test_a_start_within_a_month_has_that_month_from_there(tiny: TinyProject) -> None:
    tiny.spec["partitions"]["start"] = "2024-03-15"
    tiny.write_spec()
    assert months(tiny.pipeline).get_first_partition_key() == MONTH
    assert draw(tiny)["days_missing"] == 17
    assert gather(tiny.pipeline, "2024-03", datetime.now(UTC), "r").days[0].day == str(date(2024, 3, 15))


def test_a_page_drawn_again_replaces_the_first(tiny: TinyProject) -> None:
    draw(tiny)
    assert "No day of March 2024" in page(tiny)
    tiny.land(FINE, tiny.rows(64))
    tiny.run(FINE)
    draw(tiny)
    assert "1 scored" in page(tiny) and "No day of March 2024" not in page(tiny)
    assert [path.name for path in Path(tiny.pipeline.output.uri, "reports").iterdir()] == ["month=2024-03.html"]


def test_failed_runs_stand_on_the_page_by_class_whatever_the_instance_knows(tiny: TinyProject) -> None:
    tiny.land(FINE, b"PAR1, and no more")
    tiny.run(FINE, raise_on_error=False)
    assert draw(tiny)["failed_runs_30_days"] == 1, "an empty instance"
    assert f"<td>bad_input</td><td>1</td><td>{datetime.now(UTC):%Y-%m-%d}" in page(tiny)
    assert "<p>1 failed run, 0 recovered.</p>" in page(tiny)
