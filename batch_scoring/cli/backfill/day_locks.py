"""Who works on a day: another backfill on this machine, or a run that Dagster has launched.

A backfill holds a lock of its own for each day while it works on it (`locks.py`): a killed one blocks nobody. Nothing
depends on it but time: two runs of one day never double a row.
"""

import contextlib
import time

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.operations import run_history
from batch_scoring.operations.automation import landing_scan, planner
from batch_scoring.operations.dead_runs import end_dead_runs
from batch_scoring.operations.run_history import DayRun
from batch_scoring.runtime import locks

POLL = 1.0
"""Seconds between two looks at a run that is waited for."""
SILENCE = 180.0
"""Seconds without a heartbeat after which nobody takes runs from the queue; a living daemon sends one every 30."""


def hold(pipeline: Pipeline, day: str, *, waits: bool = False) -> contextlib.AbstractContextManager[float]:
    """Claim a day for as long as the block lasts: see `locks.hold`.

    Args:
        pipeline: whose day; pipelines with the same output are one.
        day: as YYYY-MM-DD.
        waits: wait until nobody else holds it.

    Raises:
        HeldError: another process holds it, and this one does not wait.
        PermissionError: the folder of the claims is another user's.
    """
    return locks.hold(pipeline.output.canonical, day, waits=waits)


def launched_run(pipeline: Pipeline, instance: dg.DagsterInstance, day: str) -> DayRun | None:
    """The run of the day that Dagster has launched, or is about to launch, and that is not over."""
    bounds = landing_scan.bounds_of(pipeline, instance)
    for run in run_history.of_day(instance, pipeline, day):
        may_live = run.is_launched and planner.is_in_flight(run, time.time(), bounds)
        if may_live and (run.status == "started" or _daemon_lives(instance)):
            return run
    return None


def wait_for_launched(pipeline: Pipeline, instance: dg.DagsterInstance, day: str) -> None:
    """Return when no run that Dagster has launched is at work on the day."""
    while launched_run(pipeline, instance, day):
        time.sleep(POLL)
        end_dead_runs(instance)  # without a daemon nobody else notices that its process is gone


def _daemon_lives(instance: dg.DagsterInstance) -> bool:
    """Whether somebody starts what is queued; on a laptop the daemon may have stopped long ago."""
    heartbeats = instance.get_daemon_heartbeats().values()
    return any(heartbeat.timestamp > time.time() - SILENCE for heartbeat in heartbeats)
