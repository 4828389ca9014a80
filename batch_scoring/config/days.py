"""Days as ISO dates: the days of a month, consecutive days as ranges."""

import calendar
from collections.abc import Iterable
from datetime import date, timedelta


def of_month(month: str) -> list[date]:
    """All days of a month, `YYYY-MM`."""
    first = date.fromisoformat(f"{month}-01")
    return [first.replace(day=n + 1) for n in range(calendar.monthrange(first.year, first.month)[1])]


def spans(days: Iterable[str]) -> list[tuple[date, date]]:
    """First and last day of each run of consecutive days."""
    found: list[tuple[date, date]] = []
    for day in sorted(map(date.fromisoformat, days)):
        if found and day - found[-1][1] == timedelta(days=1):
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def ranges(days: Iterable[str]) -> list[str]:
    """Consecutive days as ranges, `2013-07-01 … 2013-07-14`; a single day as it is."""
    return [f"{first} … {last}" if last > first else str(first) for first, last in spans(days)]
