"""History of a day: the days before it by date, never by the order in which they were run.

Every value comes from the state's small documents of those days; a day that was not published has none.
"""

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np

from batch_scoring.storage.state import DayChecks, DayInput, PublishedDay, State, StepName

TRAILING_DAYS = 28
"""Four of each weekday."""

TREND_DAYS = 14
"""Days in the trend of a check's result."""

LEAST_DAYS = 7
"""With fewer days there is no usual value yet."""


def days_before(day: str, count: int = TRAILING_DAYS) -> list[str]:
    """The days before a day, the oldest first."""
    return [str(date.fromisoformat(day) - timedelta(back)) for back in range(count, 0, -1)]


def inputs(state: State, day: str) -> list[DayInput]:
    """The pinned inputs of the days before."""
    return state.day_inputs(days_before(day))


def published_days(state: State, step: StepName, day: str) -> list[PublishedDay]:
    """The published days of a step among the days before."""
    return state.published_days_of(step, days_before(day))


def checks(state: State, asset: str, day: str) -> list[DayChecks]:
    """Results of an asset's checks on the days before."""
    return state.checks_of(asset, days_before(day, TREND_DAYS))


def usual_range(values: Sequence[float], tolerance: float) -> tuple[float, float] | None:
    """Lower and upper limit of usual values; None with fewer than 7 days.

    These are the smallest and the largest value of the days before, so quiet weekdays are usual; with 14 days or more,
    the second smallest and the second largest, so that one broken day does not excuse the next. `tolerance`: margin on
    both sides, as a share.
    """
    if len(values) < LEAST_DAYS:
        return None
    ranked = sorted(values)
    skipped = 1 if len(ranked) >= 2 * LEAST_DAYS else 0
    return ranked[skipped] * (1 - tolerance), ranked[-1 - skipped] * (1 + tolerance)


def median(values: Sequence[float]) -> float | None:
    """Median of the days before, which one broken day hardly moves; None with fewer than 7."""
    return float(np.median(values)) if len(values) >= LEAST_DAYS else None
