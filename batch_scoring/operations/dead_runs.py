"""Dead runs: runs without a process, which are marked as failed.

On one machine Dagster does not monitor its runs: one that was killed with -9, or by a crash of the machine, stays
STARTED and holds a slot of the queue until its maximum runtime has passed. Its finished shards are kept: the day
continues from them when it is run again, which Dagster's daemon does itself for runs launched from the UI.

Whether a process is gone is known from its lock (`run_locks.py`), held by the event log of `dagster.yaml`, and not from
its id or a clock. Runs of an instance with another event log are left alone.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from batch_scoring.operations import failed_runs
from batch_scoring.runtime import run_locks


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark the dead runs of this machine's instance as failed; return their ids.

    An instance that other machines may share (its launcher is not the local one, or its storage is not SQLite) is left
    alone: a process may live on another machine, where the launcher monitors its runs itself.
    """
    if not is_of_this_machine(instance):
        return []
    ended = [_end(instance, run) for run in _dead_runs(instance)]
    # listed after the locks: a run holds its lock before it is started
    run_locks.sweep(_locks(instance), lambda: [record.dagster_run.run_id for record in _started(instance)])
    return ended


def find_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Ids of the runs that `end_dead_runs` would mark as failed."""
    return [run.run_id for run in _dead_runs(instance)] if is_of_this_machine(instance) else []


def is_of_this_machine(instance: dg.DagsterInstance) -> bool:
    """Whether the instance's runs are processes of this machine, by its settings."""
    from batch_scoring.dagster_internals import SqliteRunStorage

    return isinstance(instance.run_launcher, dg.DefaultRunLauncher) and isinstance(
        instance.run_storage, SqliteRunStorage
    )


def _dead_runs(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    for record in _started(instance):
        run_id = record.dagster_run.run_id
        if run_locks.has_process(_locks(instance), run_id) is not False:
            continue
        now = instance.get_run_by_id(run_id)  # it may have ended normally in the meantime: a run records that last
        if now is not None and now.status == dg.DagsterRunStatus.STARTED:
            yield now


def _started(instance: dg.DagsterInstance) -> list[dg.RunRecord]:
    return list(instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])))


def _locks(instance: dg.DagsterInstance) -> Path:
    return run_locks.folder(instance.root_directory)


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    tags = failed_runs.failure_tags("lost", run.run_id)
    if run.remote_job_origin is None:  # started by a command: the daemon cannot relaunch it
        tags["dagster/max_retries"] = "0"
    instance.add_run_tags(run.run_id, tags)
    instance.report_run_failed(
        run, "The run's process is gone: killed, out of memory, or the machine went down. Finished shards are kept."
    )
    return run.run_id
