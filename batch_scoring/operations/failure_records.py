"""Failure records: what the state keeps of a failed run, so that an emptied Dagster instance forgets nothing.

A step that raises writes the record itself (`defs/step_run.py`). Of a run whose process is gone it is written by
whoever finds that out: the sensors and commands that examine the runs of a day, and the collector of alerts, which also
tries again what could not be written. A run has one record. Writing it is best effort: a state that cannot be written
neither hides the error nor delays anything by more than a few seconds.
"""

import contextlib
import functools
from collections.abc import Iterable
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterEventType as Kind

from batch_scoring.config.names import (
    export_asset,
    exports_job_name,
    job_name,
    report_job_name,
    retention_job_name,
)
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import BatchScoringError, FailureClass
from batch_scoring.operations import failed_runs
from batch_scoring.runtime.printable import one_line, printable
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.runtime.timeouts import call_within
from batch_scoring.storage.state import FailureRecord, State

MESSAGE_LENGTH = 300
"""Characters of an error's first line that are kept."""
WRITE_SECONDS = 4.0
"""Timeout of the store."""
_PARTITION = "dagster/partition"
_OF_NO_DAY = ("report", "retention")
"""Assets whose partition, if they have one, is not a day."""


def record_error(pipeline: Pipeline, run: StepContext, step: str, error: Exception, failure: FailureClass) -> None:
    """Record the failure of a step that has raised; a state that cannot be written is logged.

    Args:
        pipeline: of the step.
        run: of the step.
        step: Dagster's key of the step.
        error: what it has raised.
        failure: its class.
    """
    try:
        asset, day = _asset(pipeline, step), run.tags.get(_PARTITION, "")
        if not _is_recorded(pipeline, run.id, run.started):
            times = run.started, datetime.now(UTC)
            _put(pipeline, _record(pipeline, run.id, day, asset, failure, times, _text(error)))
    except Exception as trouble:  # the first error is the cause
        run.log(f"the failure cannot be recorded in the state: {trouble}")


def record_failure(instance: dg.DagsterInstance, run: dg.DagsterRun, pipeline: Pipeline) -> FailureClass | None:
    """Determine the failure class of an ended run of a pipeline; record the failure if none of its steps could do so.

    Args:
        instance: holds its events.
        run: see `failed_runs.record_failure`.
        pipeline: of the run.
    """
    was_recorded, failure = failed_runs.is_recorded(run), failed_runs.record_failure(instance, run)
    if failure and not was_recorded:
        record_runs(instance, [run.run_id], pipeline)
    return failure


def record_runs(instance: dg.DagsterInstance, run_ids: Iterable[str], pipeline: Pipeline) -> None:
    """Record those of some failed runs that are of a pipeline; what fails here, the collector of alerts tries again."""
    for run_id in run_ids:
        with contextlib.suppress(Exception):
            ended = instance.get_run_record_by_id(run_id)
            if ended and pipeline_of(ended.dagster_run, [pipeline]):
                record_run(instance, ended, pipeline)


def record_run(instance: dg.DagsterInstance, ended: dg.RunRecord, pipeline: Pipeline) -> None:
    """Record a failed run of a pipeline, unless it is recorded already.

    Raises:
        OSError: the store does not answer, or cannot be written.
    """
    if not _is_recorded(pipeline, ended.dagster_run.run_id, _began(ended)):
        _put(pipeline, of_run(instance, ended, pipeline))


def of_run(instance: dg.DagsterInstance, ended: dg.RunRecord, pipeline: Pipeline) -> FailureRecord:
    """The record of a failed run, from its events."""
    run, at = ended.dagster_run, datetime.fromtimestamp(failed_runs.ended_at(ended), UTC)
    step, message = _end(instance, run)
    asset = _asset(pipeline, step) or _only_asset(run, pipeline)
    is_of_a_day = asset or run.job_name not in (report_job_name(pipeline), exports_job_name(pipeline))
    day = run.tags.get(_PARTITION, "") if is_of_a_day else ""
    times = _began(ended), at
    return _record(pipeline, run.run_id, day, asset, failed_runs.of_run(run) or "lost", times, message)


def _began(ended: dg.RunRecord) -> datetime:
    return datetime.fromtimestamp(ended.start_time or ended.create_timestamp.timestamp(), UTC)


def pipeline_of(run: dg.DagsterRun, pipelines: Iterable[Pipeline]) -> Pipeline | None:
    """The first of some pipelines that a run is of; None if it is of none."""
    names = {key.path[0] for key in run.asset_selection or ()}
    return next((one for one in pipelines if one.name in names or run.job_name in _jobs(one)), None)


def _is_recorded(pipeline: Pipeline, run_id: str, started: datetime) -> bool:
    look = functools.partial(State(pipeline.output).has_failure, run_id, started)
    return call_within(WRITE_SECONDS, f"failures of {pipeline.name}", look)


def _put(pipeline: Pipeline, record: FailureRecord) -> None:
    put = functools.partial(State(pipeline.output).put_failure, record)
    call_within(WRITE_SECONDS, f"failures of {pipeline.name}", put)


def _record(
    pipeline: Pipeline,
    run_id: str,
    day: str,
    asset: str,
    failure: FailureClass,
    times: tuple[datetime, datetime],
    message: str,
) -> FailureRecord:
    began, at = times
    return FailureRecord(
        run_id=run_id,
        day="" if asset in _OF_NO_DAY else day,
        step=asset,
        failure_class=failure,
        began=began,
        at=at,
        message=_first_line(message),
        export=next((name for name in pipeline.spec.exports if export_asset(name) == asset), ""),
    )


def _text(error: Exception) -> str:
    """What an exception says, with the name of its class unless it is one of this package or Dagster's Failure."""
    if isinstance(described := getattr(error, "description", None), str):
        return described
    return str(error) if isinstance(error, BatchScoringError) else f"{type(error).__name__}: {str(error).strip()}"


def _first_line(text: str) -> str:
    line = next((one_line(line.strip()) for line in printable(text).split("\n") if line.strip()), "no message")
    return line if len(line) <= MESSAGE_LENGTH else f"{line[: MESSAGE_LENGTH - 1]}…"


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[str, str]:
    """The step at which a run ended, empty if it is unknown, and the error that ended it."""
    kinds = {Kind.STEP_START, Kind.STEP_SUCCESS, Kind.STEP_FAILURE, Kind.RUN_FAILURE}
    logs = instance.all_logs(run.run_id, of_type=kinds)
    events = [entry.dagster_event for entry in logs if entry.dagster_event]
    for event in events:
        if event.is_step_failure:
            return event.step_key or "", failed_runs.step_error(event)
    succeeded = {event.step_key for event in events if event.is_step_success}
    unfinished = (event.step_key for event in events if event.is_step_start and event.step_key not in succeeded)
    said = [event.message or "" for event in events if event.event_type == Kind.RUN_FAILURE]
    if error := failed_runs.load_error(instance, run):
        return "", f"its code does not load: {error}"
    return next(unfinished, None) or "", failed_runs.in_words(said[-1] if said else "")


def _asset(pipeline: Pipeline, step: str) -> str:
    """The asset of a step; one of several steps of an asset has its own name behind a dot."""
    return step.partition(".")[0].removeprefix(f"{pipeline.name}__")


def _only_asset(run: dg.DagsterRun, pipeline: Pipeline) -> str:
    """The pipeline's asset that a run is of, if there is only one."""
    assets = [key.path[-1] for key in run.asset_selection or () if key.path[0] == pipeline.name]
    return assets[0] if len(assets) == 1 else ""


def _jobs(pipeline: Pipeline) -> tuple[str, ...]:
    return job_name(pipeline), exports_job_name(pipeline), report_job_name(pipeline), retention_job_name(pipeline)
