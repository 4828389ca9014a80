from datetime import UTC, datetime

from batch_scoring.daily import trailing_days
from batch_scoring.storage.state import DayInput, LandingFile, State
from batch_scoring_tests.tiny import TinyProject


def pin(state: State, day: str, rows: int) -> None:
    file = LandingFile(path=f"dt={day}/a", token="", size=1, modified=datetime.now(UTC), rows=rows, columns={})
    state.put_day_input(DayInput(day=day, fingerprint="", files=(file,), run_id="", pinned_at=datetime.now(UTC)))


def test_the_days_before_are_those_of_the_calendar() -> None:
    assert trailing_days.days_before("2024-03-01", 2) == ["2024-02-28", "2024-02-29"]
    assert len(trailing_days.days_before("2024-03-01")) == 28


def test_history_is_by_date_and_never_by_the_order_of_the_runs(tiny: TinyProject) -> None:
    for day, rows in (("2024-04-02", 9), ("2024-03-31", 2), ("2024-03-03", 1), ("2024-04-01", 5), ("2024-03-04", 7)):
        pin(tiny.state, day, rows)
    assert [pinned.rows for pinned in trailing_days.inputs(tiny.state, "2024-04-01")] == [7, 2]


def test_a_damaged_document_of_another_day_is_that_days_own_trouble(tiny: TinyProject) -> None:
    pin(tiny.state, "2024-03-30", 3)
    pin(tiny.state, "2024-03-31", 4)
    tiny.pipeline.output.put("state/dt=2024-03-31/input.json", b"{")
    assert [pinned.rows for pinned in trailing_days.inputs(tiny.state, "2024-04-01")] == [3]


def test_less_than_a_week_has_nothing_usual() -> None:
    assert trailing_days.usual_range([10.0] * 6, 0.25) is None and trailing_days.median([10.0] * 6) is None


def test_the_usual_range_holds_quiet_weekdays_and_leaves_one_broken_day_out() -> None:
    assert trailing_days.usual_range([100.0] * 6 + [50.0], 0.25) == (37.5, 125.0)
    month = [100.0] * 19 + [50.0] * 8 + [3.0]
    assert trailing_days.usual_range(month, 0.25) == (37.5, 125.0)
    assert trailing_days.usual_range([*month[:-1], 5000.0], 0.25) == (37.5, 125.0)
