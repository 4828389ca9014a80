import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dagster._utils.schedules import cron_string_iterator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch_scoring.operations.automation.schedule_days import (
    days_in_words,
    days_of_tick,
    in_words,
    month_of_tick,
    newest_day,
    tick_before,
)

BEGINNING = date(1970, 1, 1)


def instant(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def asked(
    scheduled: datetime,
    cron: str,
    timezone: str,
    *,
    zone: str = "",
    days_back: int = 1,
    first: date = BEGINNING,
) -> list[str]:
    """The days of a tick of a cron, in a pipeline's `zone`; the cron's own if empty."""
    before = tick_before(scheduled, cron, timezone)
    return [str(day) for day in days_of_tick(scheduled, before, days_back, ZoneInfo(zone or timezone), first)]


def ticks(cron: str, timezone: str, begin: datetime, end: datetime) -> list[datetime]:
    """The ticks for which Dagster's daemon would evaluate a schedule, as it hands them over."""
    every = cron_string_iterator(begin.timestamp(), cron, timezone)
    within = itertools.takewhile(lambda tick: tick.timestamp() < end.timestamp(), every)
    return [datetime.fromtimestamp(tick.timestamp(), ZoneInfo(timezone)) for tick in within]


# the days of one tick


def test_a_daily_tick_asks_for_the_day_before() -> None:
    assert asked(instant("2024-03-01T06:00"), "0 6 * * *", "UTC") == ["2024-02-29"]


@pytest.mark.parametrize(("days_back", "day"), [(0, "2024-03-01"), (2, "2024-02-28"), (366, "2023-03-01")])
def test_or_for_the_day_as_far_back_as_the_spec_says(days_back: int, day: str) -> None:
    assert asked(instant("2024-03-01T06:00"), "0 6 * * *", "UTC", days_back=days_back) == [day]


def test_a_weekly_tick_asks_for_its_newest_day_and_then_for_the_others_from_the_oldest_on() -> None:
    found = asked(instant("2024-03-04T06:00"), "0 6 * * 1", "UTC")
    assert found == ["2024-03-03", *(f"2024-02-{day}" for day in (26, 27, 28, 29)), "2024-03-01", "2024-03-02"]


def test_a_monthly_tick_asks_for_a_month() -> None:
    found = asked(instant("2024-03-01T06:00"), "0 6 1 * *", "UTC")
    assert sorted(found) == [f"2024-02-{day:02}" for day in range(1, 30)]


def test_a_tick_on_monday_asks_for_the_weekend() -> None:
    assert asked(instant("2024-03-04T06:00"), "0 6 * * 1-5", "UTC") == ["2024-03-03", "2024-03-01", "2024-03-02"]
    assert asked(instant("2024-03-05T06:00"), "0 6 * * 1-5", "UTC") == ["2024-03-04"]


def test_each_of_several_ticks_a_day_asks_for_the_same_newest_day_and_the_first_for_those_between() -> None:
    cron = "0 6,18 * * 1-5"
    assert asked(instant("2024-03-04T06:00"), cron, "UTC") == ["2024-03-03", "2024-03-01", "2024-03-02"]
    assert asked(instant("2024-03-04T18:00"), cron, "UTC") == ["2024-03-03"]
    assert asked(instant("2024-03-05T06:00"), cron, "UTC") == ["2024-03-04"]


def test_days_before_the_first_are_left_out() -> None:
    monday = instant("2024-03-04T06:00")
    assert asked(monday, "0 6 * * 1", "UTC", first=date(2024, 3, 2)) == ["2024-03-03", "2024-03-02"]
    assert asked(monday, "0 6 * * 1", "UTC", first=date(2024, 3, 3)) == ["2024-03-03"]
    assert asked(monday, "0 6 * * 1", "UTC", first=date(2024, 3, 4)) == []


def test_a_time_that_is_no_tick_is_preceded_by_the_last_one() -> None:
    """The UI evaluates a schedule for any time."""
    assert tick_before(instant("2024-03-04T12:00"), "0 6 * * *", "UTC") == instant("2024-03-04T06:00")


# dates in time zones


def test_the_date_is_that_of_the_pipelines_zone_and_not_of_the_crons() -> None:
    six_in_berlin = instant("2024-07-02T05:00", "Europe/Berlin")  # 23:00 on the first in New York
    assert asked(six_in_berlin, "0 5 * * *", "Europe/Berlin", zone="America/New_York", days_back=0) == ["2024-07-01"]
    evening = instant("2024-07-01T20:30", "America/New_York")  # 00:30 on the second in UTC
    assert asked(evening, "30 20 * * *", "America/New_York", zone="UTC", days_back=0) == ["2024-07-02"]


def test_of_two_zones_whose_clocks_change_on_other_days_one_day_is_asked_for_twice_and_none_is_lost() -> None:
    """05:30 in Berlin is 23:30 in New York, but 00:30 from 10 to 30 March 2024, when only New York has summer time."""
    found = {
        str(tick.date()): asked(tick, "30 5 * * *", "Europe/Berlin", zone="America/New_York", days_back=0)
        for tick in ticks("30 5 * * *", "Europe/Berlin", instant("2024-03-09T00:00"), instant("2024-04-02T00:00"))
    }
    assert found["2024-03-10"] == ["2024-03-09"]
    assert found["2024-03-11"] == ["2024-03-11", "2024-03-10"]
    assert found["2024-03-30"] == ["2024-03-30"]
    assert found["2024-03-31"] == ["2024-03-30"]
    assert found["2024-04-01"] == ["2024-03-31"]


CHANGES = [
    # 02:30 does not exist; then it exists twice
    ("America/New_York", "30 2 * * *", "2024-03-10"),
    ("America/New_York", "30 1 * * *", "2024-11-03"),
    ("America/New_York", "30 2 * * *", "2024-11-03"),
    ("Europe/Berlin", "30 2 * * *", "2024-03-31"),
    ("Europe/Berlin", "30 2 * * *", "2024-10-27"),
    # the clocks change by half an hour
    ("Australia/Lord_Howe", "15 2 * * *", "2024-10-06"),
    ("Australia/Lord_Howe", "45 1 * * *", "2024-04-07"),
    # midnight does not exist; then 23:30 exists twice
    ("America/Sao_Paulo", "0 0 * * *", "2017-10-15"),
    ("America/Sao_Paulo", "30 0 * * *", "2017-10-15"),
    ("America/Sao_Paulo", "30 23 * * *", "2018-02-17"),
    ("America/Havana", "30 0 * * *", "2024-11-03"),
    # the last hour of the day does not exist
    ("America/Nuuk", "30 22 * * *", "2024-03-30"),
]


@pytest.mark.parametrize("days_back", [0, 1])
@pytest.mark.parametrize(("zone", "cron", "day"), CHANGES)
def test_a_daily_cron_asks_for_each_day_once_around_a_change_of_the_clocks(
    zone: str, cron: str, day: str, days_back: int
) -> None:
    change = instant(f"{day}T12:00", zone)
    around = ticks(cron, zone, change - timedelta(days=4), change + timedelta(days=4))
    found = [asked(tick, cron, zone, days_back=days_back) for tick in around]
    first = around[0].date() - timedelta(days=days_back)
    assert found == [[str(first + timedelta(days=n))] for n in range(len(around))]
    assert 8 <= len(around) <= 9 and date.fromisoformat(day) in {tick.date() for tick in around}


def test_a_time_that_the_clocks_skip_has_the_date_that_it_is_then() -> None:
    """Dagster's iterator gives midnight of that day, which is one o'clock."""
    (skipped,) = ticks(
        "0 0 * * *", "America/Sao_Paulo", instant("2017-10-14T12:00"), instant("2017-10-15T12:00", "America/Sao_Paulo")
    )
    assert skipped.hour == 1
    assert asked(skipped, "0 0 * * *", "America/Sao_Paulo", days_back=0) == ["2017-10-15"]


def test_a_time_that_comes_twice_has_another_tick_before_it_than_itself() -> None:
    """Of an hourly cron both are ticks, though their clocks show the same."""
    zone = ZoneInfo("America/New_York")
    second = datetime(2024, 11, 3, 1, 30, tzinfo=zone, fold=1)
    before = tick_before(second, "30 * * * *", "America/New_York")
    assert before.timestamp() == datetime(2024, 11, 3, 1, 30, tzinfo=zone, fold=0).timestamp()


# all ticks of a year

ZONES = {
    "UTC": 2024,
    "America/New_York": 2024,
    "Europe/Berlin": 2024,
    "Australia/Lord_Howe": 2024,
    "America/Sao_Paulo": 2017,
    "America/Havana": 2024,
    "Asia/Kolkata": 2024,
    "Pacific/Kiritimati": 2024,
    "Pacific/Pago_Pago": 2024,
}
"""With a year in which the clocks change, where they do."""


@st.composite
def crons(draw: st.DrawFn, hours: str = "") -> str:
    """Crons that tick at most once a day; `hours` makes it more often."""

    def some(least: int, most: int) -> str:
        return ",".join(map(str, sorted(draw(st.sets(st.integers(least, most), min_size=1, max_size=4)))))

    days = draw(
        st.sampled_from(
            ["* * *", "* * 1-5", "* * MON-FRI", "* * 6-7", "*/3 * *", "L * *", "31 * *", "* 3,10 *", "* * 1#2", ""]
        )
    )
    days = days or draw(st.sampled_from([f"* * {some(0, 6)}", f"{some(1, 31)} * *", f"{some(1, 28)} {some(1, 12)} *"]))
    return f"{draw(st.integers(0, 59))} {hours or draw(st.integers(0, 23))} {days}"


def of_all(cron: str, timezone: str, zone: str, days_back: int) -> tuple[list[datetime], list[list[date]]]:
    """The ticks of more than a year, and the days of each."""
    begin = datetime(ZONES[zone] - 1, 12, 1, tzinfo=UTC)
    every = ticks(cron, timezone, begin, begin + timedelta(days=430))
    found = [
        days_of_tick(tick, tick_before(tick, cron, timezone), days_back, ZoneInfo(zone), BEGINNING) for tick in every
    ]
    return every, found


def each_once(days: Sequence[date]) -> bool:
    """Whether these are all days from the first to the last, none twice, in any order."""
    return sorted(days) == [min(days) + timedelta(days=n) for n in range(len(days))]


@example("0 0 2,29 * *", "America/Havana", 0)  # Dagster's iterator of past ticks forgets 29 February
@settings(max_examples=60, deadline=None)
@given(crons(), st.sampled_from(sorted(ZONES)), st.sampled_from([0, 1, 2, 30]))
def test_the_ticks_of_a_year_ask_for_every_day_exactly_once(cron: str, zone: str, days_back: int) -> None:
    every, found = of_all(cron, zone, zone, days_back)
    assert [tick.date() - timedelta(days=days_back) for tick in every] == [days[0] for days in found]
    assert each_once([day for days in found for day in days])


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(crons(), crons(hours="6,18"), crons(hours="*/7")),
    st.sampled_from(sorted(ZONES)),
    st.sampled_from(sorted(ZONES)),
)
def test_also_in_another_zone_or_several_times_a_day_but_for_ticks_of_the_same_date(
    cron: str, timezone: str, zone: str
) -> None:
    every, found = of_all(cron, timezone, zone, 1)
    newest = [newest_day(tick, 1, ZoneInfo(zone)) for tick in every]
    assert [days[0] for days in found] == newest
    again = [days for day, before, days in zip(newest[1:], newest, found[1:], strict=False) if day == before]
    assert all(len(days) == 1 for days in again)
    new = [days for day, before, days in zip(newest[1:], newest, found[1:], strict=False) if day != before]
    assert each_once([day for days in [found[0], *new] for day in days])


@example("1 * 29 * *", "America/Havana")  # and hours of one day of the month
@settings(max_examples=40, deadline=None)
@given(st.one_of(crons(), crons(hours="*")), st.sampled_from(sorted(ZONES)))
def test_the_tick_before_a_tick_is_the_one_that_the_daemon_has_evaluated(cron: str, zone: str) -> None:
    """All ticks around the changes of the clocks, and a hundred others."""
    begin = datetime(ZONES[zone], 2, 10, tzinfo=UTC)
    every = ticks(cron, zone, begin, begin + timedelta(days=300))
    offsets = [tick.utcoffset() for tick in every]
    changes = [n for n in range(1, len(every)) if offsets[n] != offsets[n - 1]]
    tried = {n for change in changes for n in range(change - 30, change + 30)} | {
        *range(1, len(every), 1 + len(every) // 100)
    }
    for n in sorted(tried & {*range(1, len(every))}):
        assert tick_before(every[n], cron, zone).timestamp() == every[n - 1].timestamp()


# in words, and months


def test_what_a_person_is_told() -> None:
    assert in_words("5 6 * * *", "UTC") == "Every day at 06:05 (UTC)"
    assert in_words("0 6 * * 1-5", "UTC") == "At the times of the cron 0 6 * * 1-5 (UTC)"
    assert in_words("*/5 6 * * *", "UTC") == "At the times of the cron */5 6 * * * (UTC)"
    told = [days_in_words(days_back, "UTC") for days_back in (0, 1, 2)]
    assert [text.removesuffix(" (UTC) and all days since the tick before it") for text in told] == [
        "the day itself",
        "the day before",
        "the day 2 days before",
    ]


@pytest.mark.parametrize(
    ("scheduled", "month"),
    [("2024-03-01T07:45", "2024-02-01"), ("2024-03-02T07:45", "2024-03-01"), ("2024-01-01T07:45", "2023-12-01")],
)
def test_on_the_first_of_a_month_the_page_is_that_of_the_month_that_ended(scheduled: str, month: str) -> None:
    assert str(month_of_tick(instant(scheduled), ZoneInfo("UTC"))) == month
