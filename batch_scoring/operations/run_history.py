"""Run history of a day in the Dagster instance: which runs are in progress, and how the others ended.

`raw_input` tags every run, whoever started it, with the fingerprint of the files that it found and with the current
code. Whether a day is up to date is not decided here but in `daily/freshness.py`.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import dagster as dg

from batch_scoring.config.names import DECISIONS, job_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.dagster_internals import FINISHED_STATUSES
from batch_scoring.errors import FailureClass
from batch_scoring.operations import failed_runs, failure_records, retry_policy
from batch_scoring.storage.shards import digest

PARTITION = "dagster/partition"
FINGERPRINT = "batch_scoring/fingerprint"
CODE = "batch_scoring/code"
ATTEMPT = "batch_scoring/attempt"
STOPPED = "batch_scoring/stopped"
"""Tag with the run's own id if its command was interrupted: Dagster copies tags to retries of a run."""
WHOLE = {"raw_input", "validated_features", "predictions"}
"""Assets of a run that can bring a day up to date, and decisions where the pipeline has them."""
ASSETS = {*WHOLE, "model", DECISIONS}
"""Assets of a run that is about a day."""
MOST = 200
"""Newest runs of a pipeline's day that are examined."""
RUNS_PER_QUERY = 100
RETRY_DECISION_LIMIT = 60.0
"""Seconds after a failure within which Dagster decides whether to retry the run."""
LOADED_AT = time.time()
"""When this process loaded the code location: code that did not load before is fixed."""
TO_RETRY = 120.0
"""Seconds after a failure within which Dagster retries the run; never a run of a job's backfill, despite its tag."""

Status = Literal["created", "queued", "started", "to be retried", "succeeded", "failed", "refused"]
"""`refused`: failed, and the same files and code would fail again; see `failures.FINAL`."""


@dataclass(frozen=True)
class DayRun:
    """A run of a day."""

    id: str
    status: Status
    since: float
    """When it got this status (seconds since 1970)."""
    fingerprint: str = ""
    """Of its input files; empty if it failed before it knew them, or was superseded."""
    code: str = ""
    is_whole: bool = True
    """Whether it has all steps that write; a run of some assets does not bring a day up to date."""
    is_launched: bool = False
    """Whether Dagster launched it, for the UI, a sensor or a schedule; else a command did."""
    failure: FailureClass | None = None
    """Its failure class, if it has failed."""

    @property
    def is_ended(self) -> bool:
        """Whether it has ended and is not retried by Dagster."""
        return self.status in ("succeeded", "failed", "refused")


def current_code(pipeline: Pipeline) -> str:
    """Digest of all that a run's outcome depends on besides its files: code, settings, address of the model.

    The code is read from disk: a sensor's process may be older, but its runs load the code anew.
    """
    now = replace(pipeline)  # without cached digests
    decisions = [now.decisions_code] if now.spec.decisions else []
    return digest("code", now.features_code, now.scoring_code, now.bundle.uri, *decisions)[:12]


def whole(pipeline: Pipeline) -> set[str]:
    """Assets of a run that can bring a pipeline's day up to date."""
    return {*WHOLE, DECISIONS} if pipeline.spec.decisions else WHOLE


def fingerprint_tag(fingerprint: str, *, is_complete: bool) -> str:
    """Value of the fingerprint tag: the failure of an incomplete day is not an attempt with the complete files."""
    return fingerprint if is_complete else f"{fingerprint} incomplete"


def of_day(instance: dg.DagsterInstance, pipeline: Pipeline, day: str) -> list[DayRun]:
    """The runs of a pipeline's day, newest first, without interrupted ones: those are not attempts."""
    found: list[DayRun] = []
    for record in _records(instance, day):
        if len(found) == MOST:
            break
        run = record.dagster_run
        steps = _steps(run, pipeline)
        if not steps or is_stopped(run):
            continue
        if (failure := failure_records.record_failure(instance, run, pipeline)) and not failed_runs.is_recorded(run):
            record = instance.get_run_record_by_id(run.run_id) or record
            run = record.dagster_run
        status = status_of(instance, record, failure)
        found.append(
            DayRun(
                run.run_id,
                status,
                since(record, status),
                "" if failure == "superseded" or _is_fixed(record) else run.tags.get(FINGERPRINT, ""),
                run.tags.get(CODE, ""),
                is_whole=steps >= whole(pipeline),
                is_launched=run.remote_job_origin is not None,
                failure=failure,
            )
        )
    return found


def is_stopped(run: dg.DagsterRun) -> bool:
    """Whether the run ended because its command was interrupted, by Ctrl-C or SIGTERM."""
    return run.is_finished and run.tags.get(STOPPED) == run.run_id and not run.is_success


def _is_fixed(record: dg.RunRecord) -> bool:
    """Whether a run's code did not load, but does now: that was not an attempt with its files."""
    return failed_runs.has_load_error(record.dagster_run) and failed_runs.ended_at(record) < LOADED_AT


def _records(instance: dg.DagsterInstance, day: str) -> Iterator[dg.RunRecord]:
    """All runs of a day, of all pipelines, newest first."""
    return pages(instance, dg.RunsFilter(tags={PARTITION: day}))


def pages(instance: dg.DagsterInstance, filters: dg.RunsFilter) -> Iterator[dg.RunRecord]:
    """Run records, newest first."""
    cursor = None
    while page := instance.get_run_records(filters, limit=RUNS_PER_QUERY, cursor=cursor):
        yield from page
        if len(page) < RUNS_PER_QUERY:
            return
        cursor = page[-1].dagster_run.run_id


def _steps(run: dg.DagsterRun, pipeline: Pipeline) -> set[str]:
    """The pipeline's assets in a run."""
    if run.asset_selection:  # empty, not None, for a whole job that runs in its caller's process
        return {key.path[-1] for key in run.asset_selection if key.path[0] == pipeline.name} & ASSETS
    return whole(pipeline) if run.job_name == job_name(pipeline) else set()


def status_of(instance: dg.DagsterInstance, record: dg.RunRecord, failure: FailureClass | None) -> Status:
    """The status of a run, whose failure class is None unless it has failed."""
    run = record.dagster_run
    if run.status == dg.DagsterRunStatus.NOT_STARTED:
        return "created"
    if run.status == dg.DagsterRunStatus.QUEUED:
        return "queued"
    if run.status not in FINISHED_STATUSES:
        return "started"
    if run.is_success:
        return "succeeded"
    if is_retried(instance, record) and "dagster/auto_retry_run_id" not in run.tags:
        return "to be retried"
    return "refused" if failure in retry_policy.FINAL else "failed"


def is_retried(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    """Whether Dagster retries the run itself, or may still do so: it decides after the failure."""
    run = record.dagster_run
    if run.status != dg.DagsterRunStatus.FAILURE or not instance.run_retries_enabled:
        return False
    if "dagster/auto_retry_run_id" in run.tags:
        return True
    said = run.tags.get("dagster/will_retry")
    limit = {None: RETRY_DECISION_LIMIT, "true": TO_RETRY}.get(said, 0.0)
    return time.time() < failed_runs.ended_at(record) + limit


def since(record: dg.RunRecord, status: Status) -> float:
    """When a run got its status, in seconds since 1970."""
    if status in ("created", "queued"):
        return record.create_timestamp.timestamp()
    if status == "started":
        return record.start_time or record.create_timestamp.timestamp()
    return failed_runs.ended_at(record)
