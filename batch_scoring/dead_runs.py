"""Runs whose process is gone, marked as failed so that neither a queue slot nor a person waits for them.

On one machine Dagster does not look after its runs: one that was killed with -9, or went down with the machine, stays
STARTED and holds a slot of the queue until its maximum runtime is over. What such a run had finished is kept: the day
goes on from there when it is run again, which Dagster's daemon does by itself for runs that were launched from the UI.
"""

from collections.abc import Iterator

import dagster as dg

from batch_scoring import failures

CLOCK_SLACK = 15.0
"""Seconds by which the kernel's idea of when a process began may differ from the clock's: one that is set forward
moves the first and not the second."""


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark the dead runs of this machine's instance as failed; their ids.

    An instance that other machines may share (another launcher than the local one, another storage than SQLite) is
    left alone: a process that is not here may live elsewhere, and there the launcher's own monitoring sees to it.
    """
    return [_end(instance, run) for run in _dead_runs(instance)] if _is_of_this_machine(instance) else []


def find_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """The ids of the runs that `end_dead_runs` would mark."""
    return [run.run_id for run in _dead_runs(instance)] if _is_of_this_machine(instance) else []


def _is_of_this_machine(instance: dg.DagsterInstance) -> bool:
    from dagster._core.storage.runs import SqliteRunStorage  # late: it brings the database with it

    return isinstance(instance.run_launcher, dg.DefaultRunLauncher) and isinstance(
        instance.run_storage, SqliteRunStorage
    )


def _dead_runs(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        run = record.dagster_run
        processes = processes_of(instance, run)
        if not processes or any(_lives(process, record.start_time or 0.0) for process in processes):
            continue
        now = instance.get_run_by_id(run.run_id)  # it may have ended well while we looked: a run writes that last
        if now is not None and now.status == dg.DagsterRunStatus.STARTED:
            yield now


def processes_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[int]:
    """The process ids that the run's executor has written down; none in the moment before it begins."""
    events = (entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT))
    said = (event.engine_event_data.metadata.get("pid") for event in events if event)
    return {int(str(pid.value)) for pid in said if pid}


def _lives(process: int, run_began: float) -> bool:
    """Whether it runs, and is no later process that was given the same number."""
    import psutil

    try:
        found = psutil.Process(process)
        return found.status() != psutil.STATUS_ZOMBIE and found.create_time() <= run_began + CLOCK_SLACK
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    tags = failures.tags("lost", run.run_id)
    if run.remote_job_origin is None:  # started by a shell's command: the daemon could not launch it again
        tags["dagster/max_retries"] = "0"
    instance.add_run_tags(run.run_id, tags)
    instance.report_run_failed(
        run, "The run's process is gone: killed, out of memory, or the machine went down. Finished shards are kept."
    )
    return run.run_id
