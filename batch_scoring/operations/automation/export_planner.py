"""Planner of the exports: which day of an export to run next. Pure: no Dagster, no store, no clock.

One run of an export at a time, the newest day first: a sink that is down meets one run at a time, after growing pauses.
A day that the sink refuses is left alone until its version or the export's settings change, or the code is loaded anew,
as with another address in the environment; other days of the export go on. Once several days in a row were refused,
older ones would be too: they wait until a newer day or a corrected one gets through. A day that fails for a reason of
its own, which the sink has nothing to do with, comes after the days that have failed less often.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from batch_scoring.operations.automation.planner import CREATED
from batch_scoring.operations.export_runs import ExportRun, failed_in_a_row
from batch_scoring.operations.retry_policy import Pauses
from batch_scoring.operations.run_history import TO_RETRY

LONGEST_PAUSE = 3600.0
"""Seconds. A sink that is back is found within the hour, however long it was away."""
MOST_REFUSED = 3
"""Days that may be refused in a row before older days are not tried."""


@dataclass(frozen=True)
class ExportRequest:
    """A requested run."""

    day: str
    run_key: str
    attempt: int
    """Counts the runs that have failed in a row, from 1."""


@dataclass(frozen=True)
class Limits:
    """Limits of an export's runs."""

    pauses: Pauses
    max_runtime: float
    """Seconds after which a run that has not ended counts as dead."""
    loaded_at: float
    """When the code was loaded (seconds since 1970): refusals from before are forgotten."""


def plan(
    name: str, days: Mapping[str, str], runs: Sequence[ExportRun], now: float, limits: Limits
) -> tuple[ExportRequest | None, str]:
    """The run to request, and otherwise why there is none.

    Args:
        name: of the export.
        days: those that are behind, with their versions.
        runs: of the export, newest first.
        now: seconds since 1970.
        limits: of its runs.
    """
    if going := next((run for run in runs if _is_in_flight(run, now, limits)), None):
        return None, f"run {going.id[:8]} of {going.day} is {going.status}"
    refused = {day: run for day, version in days.items() if (run := _refusal(day, version, runs, limits))}
    row = failed_in_a_row(runs)
    hopeless = _hopeless(days, row, limits)
    left = [day for day in days if day not in refused and day not in hopeless]
    if not left:
        told = ", ".join(f"{day} by run {run.id[:8]}" for day, run in sorted(refused.items())) or "newer days"
        return None, f"refused: {told}; waits for another version, other settings, or a restart"
    if row and (pause := _pause_left(row, now, limits)) > 0:
        return None, f"failed {len(row)} times in a row, tried again in {pause:.0f} s"
    day = max(left, key=lambda one: (-_own_failures(one, days[one], runs), one))
    last = next((run.id[:8] for run in runs if run.status != "created"), "first")
    return ExportRequest(day, f"{name}-{day}-{days[day]}-{last}", len(row) + 1), ""


def _refusal(day: str, version: str, runs: Sequence[ExportRun], limits: Limits) -> ExportRun | None:
    """The run that was refused with the same version, if it was the day's last one."""
    last = next((run for run in runs if run.day == day and run.is_ended), None)
    is_final = last is not None and last.version == version and _is_refused(last, limits)
    return last if is_final else None


def _is_refused(run: ExportRun, limits: Limits) -> bool:
    return run.status == "refused" and run.since > limits.loaded_at


def _hopeless(days: Iterable[str], row: Sequence[ExportRun], limits: Limits) -> list[str]:
    """The days that are older than some that were all refused, and that were not refused themselves."""
    refused = {run.day for run in itertools.takewhile(lambda run: _is_refused(run, limits), row)}
    if len(refused) < MOST_REFUSED:
        return []
    return [day for day in days if day < max(refused) and day not in refused]


def _own_failures(day: str, version: str, runs: Sequence[ExportRun]) -> int:
    """Number of failures of a day's version that say nothing about the sink."""
    return sum(
        run.day == day and run.version in ("", version) and run.status == "failed" and run.failure != "sink"
        for run in runs
    )


def _pause_left(row: Sequence[ExportRun], now: float, limits: Limits) -> float:
    """Seconds until the next attempt after runs that have failed in a row; a refusal is no reason to wait."""
    if row[0].status == "refused":
        return 0.0
    pause = min(limits.pauses.after(len(row), row[0].id), LONGEST_PAUSE)
    left = row[0].since + pause - now
    return left if left <= pause else 0.0


def _is_in_flight(run: ExportRun, now: float, limits: Limits) -> bool:
    ages = {"created": CREATED, "started": limits.max_runtime, "to be retried": TO_RETRY}
    return run.status == "queued" or (run.status in ages and now - run.since < ages[run.status])
