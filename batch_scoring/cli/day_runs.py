"""Dagster runs of a day in the process of a command, without a daemon: recorded like any other run."""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import dagster as dg

from batch_scoring.operations import run_history
from batch_scoring.operations.alerting.messages import step_error
from batch_scoring.runtime import signals

CANCEL_SECONDS = 1.0
"""Time to record that a run was stopped."""
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_here(
    job: dg.JobDefinition,
    day: str,
    instance: dg.DagsterInstance,
    command: str,
    assets: Sequence[dg.AssetKey] | None = None,
    config: Mapping[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run a job for one day; the run is canceled if the command is interrupted.

    Args:
        job: to run.
        day: YYYY-MM-DD.
        instance: where the run is recorded.
        command: for the record of a run that is canceled.
        assets: of the job; all if None.
        config: of the run.
    """
    run_id = str(uuid4())
    with signals.at_end(functools.partial(cancel, instance, run_id, command)):
        return job.execute_in_process(
            partition_key=day,
            instance=instance,
            run_config=_QUIET | dict(config or {}),
            asset_selection=assets,
            raise_on_error=False,
            run_id=run_id,
        )


def cancel(instance: dg.DagsterInstance, run_id: str, command: str) -> None:
    """Record that a run was stopped, repeatedly: its thread is still running and may record its start once more."""
    until = time.monotonic() + CANCEL_SECONDS
    while time.monotonic() < until:
        run = instance.get_run_by_id(run_id)
        if run and run.is_finished:
            return
        if run:  # otherwise the run is just being created
            instance.add_run_tags(run_id, {run_history.STOPPED: run_id})
            instance.report_run_canceled(run, f"The command {command} was interrupted. Finished shards are kept.")
        time.sleep(0.02)


def first_error(result: dg.ExecuteInProcessResult) -> str:
    """The first failed step and the first line of its error."""
    for event in result.all_events:
        if event.is_step_failure:
            step, error = step_error(event)
            return f"{step}: {error.splitlines()[0]}"
    return "the run failed before its first step"
