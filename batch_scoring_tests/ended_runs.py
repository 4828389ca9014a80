"""Runs that have ended, as Dagster has them when their process is gone."""

import dagster as dg

from batch_scoring.operations import run_history
from batch_scoring_tests.tiny import DAY, TinyProject


def ended(instance: dg.DagsterInstance, tiny: TinyProject, message: str, **tags: str) -> dg.DagsterRun:
    """A run of the day that ended without a word of its steps."""
    run = dg.DagsterRun(
        f"score_{tiny.name}",
        status=dg.DagsterRunStatus.STARTED,
        tags={run_history.PARTITION: DAY, run_history.FINGERPRINT: "f", run_history.CODE: "c", **tags},
    )
    instance.add_run(run)
    instance.report_run_failed(run, message)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def ended_other(instance: dg.DagsterInstance, at: float, kind: str = "RUN_FAILURE", **tags: str) -> str:
    """The id of a run of some other job that ended at a moment, as its process would have said it."""
    run = instance.create_run_for_job(dg.GraphDefinition(name="other", node_defs=[]).to_job(), tags=tags)
    event = dg.DagsterEvent(dg.DagsterEventType[kind].value, "other", message="it is over")
    instance.report_dagster_event(event, run.run_id, timestamp=at)
    return run.run_id
