"""The runs of a pipeline's day, as the Dagster instance remembers them: which are on, how the others ended.

Each run carries what it was for: `raw_input` tags it with the fingerprint of the files that it found and with the code
in force, whoever started it. Nothing here says whether a day is done; that is `settled.py`'s business.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import dagster as dg

from batch_scoring.config.names import job_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.dagster_internals import FINISHED_STATUSES
from batch_scoring.errors import FailureClass
from batch_scoring.operations import failures, run_failures
from batch_scoring.storage.shards import digest

PARTITION = "dagster/partition"
FINGERPRINT = "batch_scoring/fingerprint"
CODE = "batch_scoring/code"
ATTEMPT = "batch_scoring/attempt"
STOPPED = "batch_scoring/stopped"
"""The run itself, if the command that it was of was told to end: Dagster copies tags to runs that go on with one."""
WHOLE = {"raw_input", "validated_features", "predictions"}
"""Assets of a run that can settle a day."""
MOST_HALVINGS = 6
"""Of 131,072 rows a batch: 2,048 are left."""
MOST = 200
"""Runs of a pipeline's day that are looked at, the newest."""
PAGE = 100
UNDECIDED = 60.0
"""Seconds after a failure within which Dagster has said whether it runs the work again."""
LOADED_AT = time.time()
"""When this process has loaded the code location's code: what did not load before is mended."""
TO_RETRY = 120.0
"""Seconds after a failure within which it does so, if it does: not for a run of a job's backfill, whatever it says."""

Status = Literal["created", "queued", "started", "to be retried", "succeeded", "failed", "refused"]
"""`refused`: failed, and the same files and code would fail again, see `failures.FINAL`."""


@dataclass(frozen=True)
class DayRun:
    """A run of a day."""

    id: str
    status: Status
    since: float
    """When it was created, started or ended (seconds since 1970)."""
    fingerprint: str = ""
    """Of the files that it is about; empty if it never got to know, or gave way to newer ones."""
    code: str = ""
    is_whole: bool = True
    """Whether it has all steps that write; a run of some assets alone settles nothing."""
    is_launched: bool = False
    """Whether Dagster launches it, for the UI, a sensor or a schedule; else it is of a shell's command."""
    failure: FailureClass | None = None
    """Its class, if it has failed."""

    @property
    def is_ended(self) -> bool:
        """Whether it is over, and nobody goes on with it."""
        return self.status in ("succeeded", "failed", "refused")


def code_in_force(pipeline: Pipeline) -> str:
    """Names what a run's outcome depends on besides the files: code, settings, where the model is delivered.

    The code is that on the disk now: a sensor's process may be older, and its runs load the code anew.
    """
    now = replace(pipeline)  # without the digests that it has kept
    return digest("code", now.features_code, now.scoring_code, now.bundle.uri)[:12]


def fingerprint_tag(fingerprint: str, *, is_complete: bool) -> str:
    """What a run is tagged with: an incomplete day's failure is no try of the same files when they are complete."""
    return fingerprint if is_complete else f"{fingerprint} incomplete"


def of_day(instance: dg.DagsterInstance, pipeline: Pipeline, day: str) -> list[DayRun]:
    """The runs of a pipeline's day, newest first, without those that were stopped: they are no tries."""
    found: list[DayRun] = []
    for record in _records(instance, day):
        if len(found) == MOST:
            break
        run = record.dagster_run
        steps = _steps(run, pipeline)
        if not steps or is_stopped(run):
            continue
        if (failure := run_failures.record_failure(instance, run)) and not run_failures.is_recorded(run):
            record = instance.get_run_record_by_id(run.run_id) or record
            run = record.dagster_run
        status = _status(instance, record, failure)
        found.append(
            DayRun(
                run.run_id,
                status,
                _since(record, status),
                "" if failure == "superseded" or _is_mended(record) else run.tags.get(FINGERPRINT, ""),
                run.tags.get(CODE, ""),
                is_whole=steps >= WHOLE,
                is_launched=run.remote_job_origin is not None,
                failure=failure,
            )
        )
    return found


def is_stopped(run: dg.DagsterRun) -> bool:
    """Whether the command that it was of was told to end, by Ctrl-C or SIGTERM, and it is over."""
    return run.is_finished and run.tags.get(STOPPED) == run.run_id and not run.is_success


def _is_mended(record: dg.RunRecord) -> bool:
    """Whether a run has died of code that did not load, and it has been loaded since: that was no try of the files."""
    return run_failures.has_load_error(record.dagster_run) and ended_at(record) < LOADED_AT


def halvings(instance: dg.DagsterInstance, pipeline: Pipeline, day: str, lost: int = 0) -> int:
    """How often a step of a day has to halve its batches: once for each try before it that its memory may have ended.

    Args:
        instance: where the runs before it are.
        pipeline: whose day.
        day: YYYY-MM-DD.
        lost: processes or pods that this run has lost at this step already.
    """
    ended = (run for run in of_day(instance, pipeline, day) if run.is_ended)
    heavy = itertools.takewhile(lambda run: run.failure in failures.HEAVY, ended)
    return min(lost + sum(1 for _ in heavy), MOST_HALVINGS)


@dataclass(frozen=True)
class FailedRuns:
    """The failed runs of one class."""

    failure: FailureClass
    runs: int
    days: tuple[str, ...]
    """Which they were of, in order."""
    last: float
    """When the last of them ended (seconds since 1970)."""


def failed_since(instance: dg.DagsterInstance, pipeline: Pipeline, since: datetime) -> list[FailedRuns]:
    """The failed runs of a pipeline's days by class, the most frequent first; `since`: when they were created."""
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], created_after=since)
    found: dict[FailureClass, list[tuple[str, float]]] = {}
    for record in _pages(instance, filters):
        run = record.dagster_run
        if (failure := run_failures.of_run(run)) and _steps(run, pipeline):
            found.setdefault(failure, []).append((run.tags.get(PARTITION, ""), ended_at(record)))
    counted = [
        FailedRuns(failure, len(ends), tuple(sorted({day for day, _ in ends if day})), max(end for _, end in ends))
        for failure, ends in found.items()
    ]
    return sorted(counted, key=lambda one: (-one.runs, one.failure))


def _records(instance: dg.DagsterInstance, day: str) -> Iterator[dg.RunRecord]:
    """All runs of a day, of whatever pipeline, newest first."""
    return _pages(instance, dg.RunsFilter(tags={PARTITION: day}))


def _pages(instance: dg.DagsterInstance, filters: dg.RunsFilter) -> Iterator[dg.RunRecord]:
    """Run records, newest first."""
    cursor = None
    while page := instance.get_run_records(filters, limit=PAGE, cursor=cursor):
        yield from page
        if len(page) < PAGE:
            return
        cursor = page[-1].dagster_run.run_id


def _steps(run: dg.DagsterRun, pipeline: Pipeline) -> set[str]:
    """The assets of the pipeline that a run is of."""
    if run.asset_selection:  # of a whole job that runs in its caller's process it is empty, and not None
        return {key.path[-1] for key in run.asset_selection if key.path[0] == pipeline.name} & {*WHOLE, "model"}
    return WHOLE if run.job_name == job_name(pipeline) else set()


def _status(instance: dg.DagsterInstance, record: dg.RunRecord, failure: FailureClass | None) -> Status:
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
    return "refused" if failure in failures.FINAL else "failed"


def is_retried(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    """Whether Dagster runs the work again by itself, or may still do so: it says that after the failure."""
    run = record.dagster_run
    if run.status != dg.DagsterRunStatus.FAILURE or not instance.run_retries_enabled:
        return False
    if "dagster/auto_retry_run_id" in run.tags:
        return True
    said = run.tags.get("dagster/will_retry")
    patience = {None: UNDECIDED, "true": TO_RETRY}.get(said, 0.0)
    return time.time() < ended_at(record) + patience


def ended_at(record: dg.RunRecord) -> float:
    """When a run ended, in seconds since 1970."""
    return record.end_time or record.update_timestamp.timestamp()


def _since(record: dg.RunRecord, status: Status) -> float:
    if status in ("created", "queued"):
        return record.create_timestamp.timestamp()
    if status == "started":
        return record.start_time or record.create_timestamp.timestamp()
    return ended_at(record)
