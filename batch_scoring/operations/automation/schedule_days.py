"""Days that a schedule's tick scores, and the month that it reports on. Pure: no clock, no storage.

A tick is an instant, a day is a date. A tick's date is taken in the pipeline's time zone, and from then on only whole
dates are counted, so no hour that a clock change skips or repeats can lose a day.
"""

import contextlib
import re
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from batch_scoring.dagster_internals import CheckError, cron_string_iterator

PAGE_CRON = "45 7 * * *"
"""When reports are drawn: after the night's runs, before work begins. Not at midnight, which some days lack."""

RETENTION_CRON = "45 11 * * *"
"""When retention deletes: after the night's runs and their repairs, during working hours."""


LOOKS_BACK = tuple(timedelta(days=days) for days in (2, 40, 400, 4 * 366, 30 * 366))
"""How far back the last tick is searched for: usually it is recent, but 29 February may be eight years ago."""


def tick_before(scheduled: datetime, cron: str, timezone: str) -> datetime:
    """The last tick before a time, found with the iterator that Dagster's daemon uses for the next one.

    Dagster's iterator of past ticks misses some: 29 February, or hours on one day of the month.

    Args:
        scheduled: with a time zone; not necessarily a tick.
        cron: of the schedule.
        timezone: of the cron.
    """
    end, zone = scheduled.timestamp(), ZoneInfo(timezone)
    today = datetime.fromtimestamp(end, zone).date()
    for back in LOOKS_BACK:
        last = None
        # from noon, which no clock change skips or repeats: the iterator may fail from a repeated hour
        begin = datetime.combine(today - back, time(12), zone)
        with contextlib.suppress(CheckError):  # it may still fail, but not from farther back
            for tick in cron_string_iterator(begin.timestamp(), cron, timezone):
                if tick.timestamp() >= end:  # datetimes of one zone compare by wall-clock time, which may repeat
                    break
                last = tick
            if last is not None:
                return last
    raise ValueError(f"the cron {cron} has no tick in the {LOOKS_BACK[-1].days} days before {scheduled}")


def newest_day(scheduled: datetime, days_back: int, zone: ZoneInfo) -> date:
    """The newest day of a tick: its date in the pipeline's time zone, less `days_back`."""
    # by the timestamp: Dagster's iterator yields skipped times, such as midnight in Sao Paulo
    return datetime.fromtimestamp(scheduled.timestamp(), zone).date() - timedelta(days=days_back)


def days_of_tick(scheduled: datetime, before: datetime, days_back: int, zone: ZoneInfo, first: date) -> list[date]:
    """The days that a tick requests: its newest day and all days since the newest one of the previous tick.

    A second tick on the same date requests the same newest day again. The newest day comes first, as people wait for
    it; then the others from the oldest on, as checks compare a day with the days before it.

    Args:
        scheduled: when the tick is due.
        before: the previous tick.
        days_back: days between a tick's date and its newest day.
        zone: of the pipeline; days begin by it.
        first: first day of the pipeline.
    """
    newest, done = newest_day(scheduled, days_back, zone), newest_day(before, days_back, zone)
    if newest < first:
        return []
    oldest = max(first, done + timedelta(days=1))
    return [newest, *(oldest + timedelta(days=n) for n in range((newest - oldest).days))]


def month_of_tick(scheduled: datetime, zone: ZoneInfo) -> date:
    """First day of the month of the day before a tick: on the 1st, that is the month that has just ended."""
    return newest_day(scheduled, 1, zone).replace(day=1)


def in_words(cron: str, timezone: str) -> str:
    """Description of a schedule's ticks."""
    daily = re.fullmatch(r"(\d+) (\d+) \* \* \*", cron)
    when = f"Every day at {int(daily[2]):02}:{int(daily[1]):02}" if daily else f"At the times of the cron {cron}"
    return f"{when} ({timezone})"


def days_in_words(days_back: int, timezone: str) -> str:
    """Description of the days that a tick requests."""
    newest = {0: "the day itself", 1: "the day before"}.get(days_back, f"the day {days_back} days before")
    return f"{newest} ({timezone}) and all days since the tick before it"
