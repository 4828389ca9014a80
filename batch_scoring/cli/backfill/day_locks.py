"""Per-day locks of backfills, and in-flight Dagster runs.

A backfill locks each day while it works on it (`runtime/locks.py`), and leaves a day to a run that Dagster launched.
Only time depends on that: two runs of one day never duplicate a row. But without it two backfills of one range run in
step and score every day twice, instead of sharing the days. A killed backfill leaves no lock behind.
"""

import contextlib
import time

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.operations import failure_records, run_history
from batch_scoring.operations.automation import landing_scan, planner
from batch_scoring.operations.dead_runs import end_dead_runs
from batch_scoring.operations.run_history import DayRun
from batch_scoring.runtime import locks

POLL = 1.0
"""Seconds between two polls of a run."""
HEARTBEAT_TIMEOUT = 180.0
"""Seconds without a heartbeat after which the daemon counts as stopped; a running one sends one every 30."""


def hold(pipeline: Pipeline, day: str, *, waits: bool = False) -> contextlib.AbstractContextManager[float]:
    """Lock a day while the block lasts, see `locks.hold`.

    Args:
        pipeline: of the day; pipelines with the same output share their locks.
        day: as YYYY-MM-DD.
        waits: wait until the lock is free.

    Raises:
        HeldError: another process holds it, and `waits` is false.
        PermissionError: the folder of the locks is another user's.
    """
    return locks.hold(pipeline.output.canonical, day, waits=waits)


def launched_run(pipeline: Pipeline, instance: dg.DagsterInstance, day: str) -> DayRun | None:
    """The unfinished run of the day that Dagster has launched, or is about to launch."""
    bounds = landing_scan.bounds_of(pipeline, instance)
    for run in run_history.of_day(instance, pipeline, day):
        may_live = run.is_launched and planner.is_in_flight(run, time.time(), bounds)
        if may_live and (run.status == "started" or _daemon_lives(instance)):
            return run
    return None


def wait_for_launched(pipeline: Pipeline, instance: dg.DagsterInstance, day: str) -> None:
    """Wait until no run that Dagster has launched is working on the day."""
    while launched_run(pipeline, instance, day):
        time.sleep(POLL)
        # without a daemon nothing else notices that its process is gone
        failure_records.record_runs(instance, end_dead_runs(instance), pipeline)


def _daemon_lives(instance: dg.DagsterInstance) -> bool:
    """Whether the daemon runs and starts what is queued; on a laptop it may have stopped long ago."""
    heartbeats = instance.get_daemon_heartbeats().values()
    return any(heartbeat.timestamp > time.time() - HEARTBEAT_TIMEOUT for heartbeat in heartbeats)
