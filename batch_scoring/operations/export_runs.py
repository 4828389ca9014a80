"""Runs of exports in the Dagster instance: how an export's last runs ended, and which of them are worth an alert.

An export has one run at a time, whatever its days: days that are behind wait for each other. So the runs that failed in
a row since one succeeded tell how its sink is.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from batch_scoring.config.names import asset_path, export_asset, exports_job_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import FailureClass
from batch_scoring.operations import failure_records, run_history
from batch_scoring.operations.retry_policy import Pauses
from batch_scoring.operations.run_history import PARTITION, Status

VERSION = "batch_scoring/version"
"""Tag with the digest of what a run exports; a run that was started by hand has none."""
MOST_RUNS = 100
"""Newest runs of a pipeline's exports that are examined."""


@dataclass(frozen=True)
class ExportRun:
    """A run of an export of a day."""

    id: str
    day: str
    status: Status
    since: float
    """When it got this status (seconds since 1970)."""
    version: str = ""
    failure: FailureClass | None = None
    """Its failure class, if it has failed."""

    @property
    def is_ended(self) -> bool:
        """Whether it has ended."""
        return self.status in ("succeeded", "failed", "refused")


def of_pipeline(instance: dg.DagsterInstance, pipeline: Pipeline) -> dict[str, list[ExportRun]]:
    """The runs of each export of a pipeline, newest first, without interrupted ones."""
    found: dict[str, list[ExportRun]] = {name: [] for name in pipeline.spec.exports}
    filters = dg.RunsFilter(job_name=exports_job_name(pipeline))
    for record in itertools.islice(run_history.pages(instance, filters), MOST_RUNS):
        if run_history.is_stopped(record.dagster_run):
            continue
        for name, run in _by_export(instance, pipeline, record).items():
            found[name].append(run)
    return found


def failed_in_a_row(runs: Sequence[ExportRun]) -> list[ExportRun]:
    """The ended runs since the last that succeeded, newest first."""
    ended = [run for run in runs if run.is_ended]
    return list(itertools.takewhile(lambda run: run.status != "succeeded", ended))


def is_worth_an_alert(run_id: str, runs: Sequence[ExportRun], pauses: Pauses) -> bool:
    """Whether a failed run is the last attempt, or the first one that will not be repeated.

    After that the export is tried on in silence; a newer day than those that have failed is told once more.

    Args:
        run_id: of one of the runs.
        runs: of an export, newest first.
        pauses: with the number of retries.
    """
    row = failed_in_a_row(list(itertools.dropwhile(lambda run: run.id != run_id, runs)))
    if not row or row[0].id != run_id:
        return False
    attempts = 1 if row[0].status == "refused" else pauses.tries
    is_newer_day = row[0].day > max((run.day for run in row[1:]), default="")
    return len(row) == attempts or (len(row) > attempts and is_newer_day)


def _by_export(instance: dg.DagsterInstance, pipeline: Pipeline, record: dg.RunRecord) -> dict[str, ExportRun]:
    """The part of each export in a run."""
    failure = failure_records.record_failure(instance, record.dagster_run, pipeline)
    record = instance.get_run_record_by_id(record.dagster_run.run_id) or record
    status = run_history.status_of(instance, record, failure)
    parts = exports_in(record.dagster_run, pipeline)
    failed = set(parts) if failure is None or len(parts) < 2 else _failed_steps(instance, pipeline, record, parts)
    return {name: _part(record, status if name in failed else "succeeded", failure) for name in parts}


def exports_in(run: dg.DagsterRun, pipeline: Pipeline) -> list[str]:
    """The exports that a run of their job is about."""
    if not run.asset_selection:
        return list(pipeline.spec.exports)
    selected = {tuple(key.path) for key in run.asset_selection}
    return [name for name in pipeline.spec.exports if tuple(asset_path(pipeline, export_asset(name))) in selected]


def _part(record: dg.RunRecord, status: Status, failure: FailureClass | None) -> ExportRun:
    run = record.dagster_run
    return ExportRun(
        run.run_id,
        run.tags.get(PARTITION, ""),
        status,
        run_history.since(record, status),
        run.tags.get(VERSION, ""),
        failure if status in ("failed", "refused") else None,
    )


def _failed_steps(
    instance: dg.DagsterInstance, pipeline: Pipeline, record: dg.RunRecord, parts: Sequence[str]
) -> set[str]:
    """The exports that did not succeed in a run of several, which has one failure class for all."""
    keys = {dg.AssetKey(asset_path(pipeline, export_asset(name))).to_python_identifier(): name for name in parts}
    stats = instance.get_run_step_stats(record.dagster_run.run_id, list(keys))
    well = {keys[step.step_key] for step in stats if step.status and step.status.value == "SUCCESS"}
    return set(parts) - well
