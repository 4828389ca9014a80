"""A month is read from the state, and from nothing else."""

import re
from datetime import UTC, datetime

import pytest

from batch_scoring.monitoring.checks import decision_checks
from batch_scoring.monitoring.cost import money
from batch_scoring.monitoring.report.month import gather
from batch_scoring.storage.state import ColumnDrift, DayDrift
from batch_scoring_tests.decided import customers, with_decisions
from batch_scoring_tests.month_pages import FINE, QUARANTINED, draw, page, series
from batch_scoring_tests.tiny import TinyProject


def test_today_is_not_missing_and_tomorrow_is_not_there(tiny: TinyProject) -> None:
    tiny.land(FINE, tiny.rows(64))
    tiny.run(FINE)
    late = datetime(2024, 3, 5, 23, 59, tzinfo=UTC)
    assert [(day.day, day.status) for day in gather(tiny.pipeline, "2024-03", late, "r").days] == [
        ("2024-03-01", "missing"),
        ("2024-03-02", "missing"),
        ("2024-03-03", "missing"),
        (FINE, "scored"),
    ]
    tiny.spec["partitions"]["timezone"] = "Asia/Tokyo"
    tiny.write_spec()
    assert gather(tiny.pipeline, "2024-03", late, "r").days[-1].day == QUARANTINED, "there it is the 6th already"


def test_a_damaged_document_is_named_and_takes_nothing_else_away(tiny: TinyProject) -> None:
    tiny.land(FINE, tiny.rows(64))
    tiny.run(FINE)
    tiny.pipeline.output.put(f"state/dt={FINE}/checks/raw_input.json", b"{")
    assert draw(tiny)["days_scored"] == 1
    assert re.search(rf"{FINE} is incomplete here: .*raw_input\.json is damaged", page(tiny))


def test_newer_input_makes_a_scored_day_unfinished(tiny: TinyProject) -> None:
    tiny.land(FINE, tiny.rows(64))
    tiny.run(FINE)
    tiny.land(FINE, tiny.rows(70))
    tiny.run(FINE, ["raw_input"])
    assert draw(tiny)["days_unfinished"] == 1


def test_throughput_is_of_the_rows_that_the_run_worked_on(tiny: TinyProject) -> None:
    tiny.land(FINE, tiny.rows(100), age=100)
    tiny.run(FINE)
    first = tiny.published_day("predictions", FINE)
    assert first.seconds > 0 and first.rows_per_second == pytest.approx(100 / first.seconds)
    tiny.run(FINE)
    assert tiny.published_day("predictions", FINE).seconds == first.seconds, "an unchanged day keeps its account"
    tiny.land(FINE, tiny.rows(5, start=100), "late.parquet")
    tiny.run(FINE)
    published_day = tiny.published_day("predictions", FINE)
    assert published_day.rows_per_second == pytest.approx(5 / published_day.seconds), (
        "100 of the rows are an earlier run's"
    )
    tiny.spec["prices"] = {"currency": "EUR", "cpu_hour": 3600}
    tiny.write_spec()
    figures = draw(tiny)
    assert series(tiny, "throughput") == {
        step: {FINE: pytest.approx(tiny.published_day(step, FINE).rows_per_second)}
        for step in ("validated_features", "predictions")
    }
    took = [tiny.published_day(step, FINE).usage for step in ("validated_features", "predictions")]
    assert all(took)
    seconds = sum(usage.cpu_seconds for usage in took if usage)
    (line,) = re.findall(r"<b>cost</b> (.*?)</p>", page(tiny))
    assert line.startswith(f"{money(seconds)} EUR for 1 day (") and f"; {seconds:,.1f} CPU s, " in line
    assert figures["cost"].startswith(f"{money(seconds)} EUR for 1 day")


def test_trailing_days_have_lines_of_their_own(tiny: TinyProject) -> None:
    def column(name: str, horizon: str, observed: float, threshold: float) -> ColumnDrift:
        return ColumnDrift(
            column=name,
            horizon=horizon,
            rows=99,
            observed=observed,
            threshold=threshold,
            drifted=False,  # type: ignore[arg-type]
        )

    tiny.state.put_drift(
        DayDrift(
            day=FINE,
            run_id="r",
            model_sha256="s",
            features=(
                column("x", "day", 0.45, 0.9),
                column("y", "missing", 0.4, 0.5),
                column("flat", "day", 0.0, 0.0),
                column("x", "trailing", 0.6, 0.9),
                column("n", "trailing", 0.5, 0.25),
            ),
            predictions=(column("prob_class_1", "trailing", 0.3, 0.4),),
        )
    )
    (day,) = [day for day in gather(tiny.pipeline, "2024-03", datetime.now(UTC), "r").days if day.day == FINE]
    assert {name: worst.column for name, worst in day.drift.items()} == {
        "the day": "y",
        "28 days, features": "n",
        "28 days, scores": "prob_class_1",
    }


def test_the_checks_of_decisions_are_there_for_pipelines_that_have_them(tiny: TinyProject) -> None:
    now = datetime.now(UTC)
    checks = gather(tiny.pipeline, "2024-03", now, "r").checks
    assert not [asset for asset, _ in checks if asset == "decisions"]
    with_decisions(tiny)
    tiny.land(FINE, customers(tiny, 64))
    tiny.run(FINE)
    month = gather(tiny.pipeline, "2024-03", now, "r")
    assert set(month.checks) - set(checks) == {("decisions", name) for name in decision_checks.CHECKS}
    (day,) = [day for day in month.days if day.day == FINE]
    assert day.status == "scored" and day.checks["decisions", "caps_hold"].passed
    assert [*day.costs] == ["validated_features", "predictions", "decisions"] and all(day.costs.values())
