"""What a tick of a schedule asks for: the days that it scores, the month whose page it draws. No clock, no storage.

Ticks are instants, days are dates: a tick's date is read in the pipeline's time zone, and from there on only whole
dates are counted, so no hour that is skipped or comes twice can lose a day.
"""

import contextlib
import re
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from batch_scoring.dagster_internals import CheckError, cron_string_iterator

PAGE_CRON = "45 7 * * *"
"""When pages are drawn: after a night's runs, before people come. Not around midnight, which some days do not have."""

RETENTION_CRON = "45 11 * * *"
"""When retention deletes: after the night's runs and those that mend them, while people are there."""


LOOKS_BACK = tuple(timedelta(days=days) for days in (2, 40, 400, 4 * 366, 30 * 366))
"""How far back the last tick is looked for: of most crons it is near, 29 February may be eight years ago."""


def tick_before(scheduled: datetime, cron: str, timezone: str) -> datetime:
    """The last tick before another one, by the iterator with which Dagster's daemon finds the next.

    Its iterator of past ticks loses some: 29 February, hours of one day of the month.

    Args:
        scheduled: with a time zone; need not be a tick.
        cron: of the schedule.
        timezone: of the cron.
    """
    end, zone = scheduled.timestamp(), ZoneInfo(timezone)
    today = datetime.fromtimestamp(end, zone).date()
    for back in LOOKS_BACK:
        last = None
        # from a noon, which no clocks skip or repeat: from an hour that comes twice the iterator may fail
        begin = datetime.combine(today - back, time(12), zone)
        with contextlib.suppress(CheckError):  # so it may all the same, and from farther back it does not
            for tick in cron_string_iterator(begin.timestamp(), cron, timezone):
                if tick.timestamp() >= end:  # datetimes of one zone compare by what their clocks show, which repeats
                    break
                last = tick
            if last is not None:
                return last
    raise ValueError(f"the cron {cron} has no tick in the {LOOKS_BACK[-1].days} days before {scheduled}")


def newest_day(scheduled: datetime, days_back: int, zone: ZoneInfo) -> date:
    """The newest day of a tick: its date in the pipeline's time zone, less `days_back`."""
    # by the timestamp: Dagster's iterator gives times that the clocks skip, such as midnight in Sao Paulo
    return datetime.fromtimestamp(scheduled.timestamp(), zone).date() - timedelta(days=days_back)


def days_of_tick(scheduled: datetime, before: datetime, days_back: int, zone: ZoneInfo, first: date) -> list[date]:
    """The days that a tick asks for: its newest one and all since the newest one of the tick before.

    A second tick of the same date asks for the same newest day again. The newest day comes first, since people wait
    for it; then the others from the oldest on, since checks compare a day with those before it.

    Args:
        scheduled: when the tick is due.
        before: the tick before it.
        days_back: how long before its own date a tick's newest day is.
        zone: the pipeline's, in which days begin.
        first: first day of the pipeline; none before it is asked for.
    """
    newest, done = newest_day(scheduled, days_back, zone), newest_day(before, days_back, zone)
    if newest < first:
        return []
    oldest = max(first, done + timedelta(days=1))
    return [newest, *(oldest + timedelta(days=n) for n in range((newest - oldest).days))]


def month_of_tick(scheduled: datetime, zone: ZoneInfo) -> date:
    """The first day of the month in which the day before a tick lies: on the first of a month, the month that ended."""
    return newest_day(scheduled, 1, zone).replace(day=1)


def in_words(cron: str, timezone: str) -> str:
    """When a schedule ticks, for a person."""
    daily = re.fullmatch(r"(\d+) (\d+) \* \* \*", cron)
    when = f"Every day at {int(daily[2]):02}:{int(daily[1]):02}" if daily else f"At the times of the cron {cron}"
    return f"{when} ({timezone})"


def days_in_words(days_back: int, timezone: str) -> str:
    """Which days a tick asks for, for a person."""
    newest = {0: "the day itself", 1: "the day before"}.get(days_back, f"the day {days_back} days before")
    return f"{newest} ({timezone}) and all days since the tick before it"
