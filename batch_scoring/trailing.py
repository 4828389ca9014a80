"""What the days before a day were like, by date and never by the order in which they were run.

Every value comes from the state's small documents of those days; a day that was not published has none.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import TypeVar

import numpy as np

from batch_scoring.state import Account, DayChecks, DayInput, State, StateError, StepName

TRAILING_DAYS = 28
"""Four of each weekday."""

TREND_DAYS = 14
"""Shown to a person."""

LEAST_DAYS = 7
"""Below that there is no usual value yet."""

_Found = TypeVar("_Found")


def days_before(day: str, count: int = TRAILING_DAYS) -> list[str]:
    """The days before a day, the oldest first."""
    return [str(date.fromisoformat(day) - timedelta(back)) for back in range(count, 0, -1)]


def inputs(state: State, day: str) -> list[DayInput]:
    """What was pinned on the days before."""
    return _each(lambda before: state.day_input(before), days_before(day))


def accounts(state: State, step: StepName, day: str) -> list[Account]:
    """A step's accounts of the days before."""
    return _each(lambda before: state.account(step, before), days_before(day))


def checks(state: State, asset: str, day: str) -> list[DayChecks]:
    """What an asset's checks said on the days before."""
    return _each(lambda before: state.checks(asset, before), days_before(day, TREND_DAYS))


def usual_range(values: Sequence[float], tolerance: float) -> tuple[float, float] | None:
    """Between which values a day is usual; None with fewer than 7 days.

    The smallest and the largest of the days before, which holds quiet weekdays; of 14 days or more the second of
    each, so that one broken day does not excuse the next. `tolerance`: beyond them, as a share.
    """
    if len(values) < LEAST_DAYS:
        return None
    ranked = sorted(values)
    skipped = 1 if len(ranked) >= 2 * LEAST_DAYS else 0
    return ranked[skipped] / (1 + tolerance), ranked[-1 - skipped] * (1 + tolerance)


def mean(values: Sequence[float]) -> float | None:
    """Of the days before; None with fewer than 7."""
    return float(np.mean(values)) if len(values) >= LEAST_DAYS else None


def _each(read: Callable[[str], _Found | None], days: Sequence[str]) -> list[_Found]:
    def read_or_none(day: str) -> _Found | None:
        try:
            return read(day)
        except StateError:  # a day that has none, or a damaged one, which its own run will name
            return None

    with ThreadPoolExecutor(16) as pool:  # on S3 a read is a round trip
        return [found for found in pool.map(read_or_none, days) if found is not None]
