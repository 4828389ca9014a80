"""Texts of alerts about ended runs, failing sensors and broken pipelines.

Which runs are worth an alert, and what was sent before, is decided in `collector.py`.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterEventType as Kind

from batch_scoring.config.loader import BrokenPipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import FailureClass
from batch_scoring.operations import failed_runs, retry_policy
from batch_scoring.operations.alerting.channels import Message
from batch_scoring.operations.alerting.outbox import stamp
from batch_scoring.operations.automation import sensor_status
from batch_scoring.operations.failed_runs import BLOCKED, WAITS
from batch_scoring.operations.run_history import ATTEMPT, PARTITION, is_stopped
from batch_scoring.storage.state import State

MESSAGE_LINE_LENGTH = 1000
"""Characters of a line in a message."""
MOST_RUNS = 100
"""Earlier runs examined."""


@dataclass(frozen=True)
class Ended:
    """A run that has ended, and the facts from its events."""

    run: dg.DagsterRun
    at: float
    """Seconds since 1970."""
    evaluations: tuple[dg.AssetCheckEvaluation, ...]
    step_error: tuple[str, str] | None
    """The first step that failed, and its error."""
    last_words: str
    """Dagster's message about its end, unless it succeeded."""
    load_error: str | None = None
    """The error with which its code did not load, if that ended the run."""

    @property
    def topic(self) -> str:
        """Name of the pipeline; for a job of another kind, the job's name."""
        run = self.run
        if run.job_name.startswith(("score_", "report_", "export_")):
            return run.job_name.partition("_")[2]
        keys = run.asset_selection or {evaluation.asset_key for evaluation in self.evaluations}
        return ", ".join(sorted({key.path[0] for key in keys})) or run.job_name

    @property
    def subject(self) -> str:
        """Pipeline and day."""
        return f"{self.topic} {self.run.tags.get(PARTITION, '')}".rstrip()


def read(instance: dg.DagsterInstance, record: dg.RunRecord) -> Ended:
    """Read the events of a run."""
    kinds = {Kind.ASSET_CHECK_EVALUATION, Kind.STEP_FAILURE, Kind.RUN_FAILURE, Kind.RUN_CANCELED}
    if not record.dagster_run.is_success:  # some of its steps may still be waiting
        kinds |= {Kind.ENGINE_EVENT, Kind.STEP_START}
    logs = instance.all_logs(record.dagster_run.run_id, of_type=kinds)
    events = [entry.dagster_event for entry in logs if entry.dagster_event]
    ends = [event.message or "" for event in events if event.event_type in (Kind.RUN_FAILURE, Kind.RUN_CANCELED)]
    return Ended(
        record.dagster_run,
        failed_runs.ended_at(record),
        tuple(e.asset_check_evaluation_data for e in events if e.event_type == Kind.ASSET_CHECK_EVALUATION),
        next((step_error(event) for event in events if event.is_step_failure), None),
        "; ".join([*ends[-1:], *_waits(events)]),
        None if record.dagster_run.is_success else failed_runs.load_error(instance, record.dagster_run),
    )


def _waits(events: Sequence[dg.DagsterEvent]) -> list[str]:
    """What the steps that have not started are waiting for."""
    waits: dict[str, str] = {}
    for event in events:
        if event.event_type == Kind.STEP_START:
            waits.pop(event.step_key or "", None)
        elif event.step_key and (WAITS in (event.message or "") or BLOCKED in (event.message or "")):
            waits[event.step_key] = event.message or ""
    return list(waits.values())


def step_error(event: dg.DagsterEvent) -> tuple[str, str]:
    """The asset of a failed step, and the full message of its error."""
    return (event.step_key or "").replace("__", "/"), failed_runs.step_error(event)


def of_run(
    instance: dg.DagsterInstance, ended: Ended, failed: Sequence[dg.AssetCheckEvaluation], counts: str
) -> Message:
    """Alert for a run that has ended.

    Args:
        instance: holds earlier runs of the same work.
        ended: the run.
        failed: its failed checks, without those reported before.
        counts: the row counts of the day; may be empty.
    """
    run = ended.run
    title, lines = _headline(ended, failed), [_check(evaluation) for evaluation in failed]
    if run.status == dg.DagsterRunStatus.FAILURE:
        failure = failed_runs.of_run(run)
        lines = [*_error(ended, failed), *lines, f"class: {failure}", *_outlook(instance, run, failure)]
        if streak := _streak(instance, run):
            title, lines = f"{title}, {streak}", [*lines, streak]
    elif run.status == dg.DagsterRunStatus.CANCELED:
        lines += [ended.last_words] if ended.last_words else []
    lines += [counts] if counts else []
    lines += [f"ended {stamp(datetime.fromtimestamp(ended.at, UTC))}", link(f"runs/{run.run_id}")]
    is_grave = not (run.is_success or is_stopped(run)) or any(e.severity == dg.AssetCheckSeverity.ERROR for e in failed)
    return Message(
        topic=ended.topic,
        title=title,
        body="\n".join(line[:MESSAGE_LINE_LENGTH] for line in lines),
        kind="failure" if is_grave else "warning" if failed else "info" if is_stopped(run) else "success",
    )


def unreadable(record: dg.RunRecord, error: Exception) -> Message:
    """Alert for a run whose events cannot be read."""
    run = record.dagster_run
    subject = f"{run.job_name} {run.tags.get(PARTITION, '')}".rstrip()
    return Message(
        topic=run.job_name,
        title=f"{subject}: {run.status.value.lower()}, its events cannot be read",
        body=f"{type(error).__name__}: {error}\n{link(f'runs/{run.run_id}')}",
        kind="failure",
    )


def of_sensor(broken: sensor_status.FailingSensor) -> Message:
    """Alert for a sensor whose ticks fail: files that land are not found until it works again."""
    name = broken.pipeline.name
    what = "days are not exported" if broken.is_of_exports else "files that land are not scored"
    body = f"{broken.error}\n{what} until it works again, and are found then"
    return Message(
        topic=name,
        title=f"{name}: the sensor {broken.sensor} has failed since {stamp(broken.since)}",
        kind="failure",
        body="\n".join(line[:MESSAGE_LINE_LENGTH] for line in (*body.splitlines(), link("overview/sensors"))),
    )


def of_broken(broken: BrokenPipeline) -> Message:
    """Alert for a pipeline left out of the deployment: none of its days is scored until it is corrected."""
    count = "1 error" if len(broken.errors) == 1 else f"{len(broken.errors)} errors"
    advice = (
        "no day of it is scored until they are corrected and the code location is reloaded; published scores are kept"
    )
    missed = f"days that its schedule has missed by then: batch-scoring backfill {broken.name} FIRST LAST"
    return Message(
        topic=broken.name,
        title=f"{broken.name}: left out of the deployment, {count}",
        kind="failure",
        body="\n".join(
            line[:MESSAGE_LINE_LENGTH] for line in (*broken.errors, advice, missed, link("overview/sensors"))
        ),
    )


def row_counts(pipelines: Mapping[str, Pipeline], ended: Ended) -> str:
    """Row counts of the day, if this run has published it.

    Raises:
        OSError: the store did not answer.
        StateError: the record of a published day is damaged.
    """
    pipeline, day, run_id = pipelines.get(ended.topic), ended.run.tags.get(PARTITION), ended.run.run_id
    if pipeline is None or day is None:
        return ""
    state = State(pipeline.output)
    features, scored = state.published_day("validated_features", day), state.published_day("predictions", day)
    if features is None:
        return ""
    quarantined = features.rows_quarantined
    if scored and scored.run_id == run_id and scored.fingerprint == features.fingerprint:
        quarantined += scored.rows_quarantined
        return f"{features.rows_in:,} rows in, {scored.rows:,} scored, {quarantined:,} quarantined"
    return f"{features.rows_in:,} rows in, {quarantined:,} quarantined" if features.run_id == run_id else ""


def link(path: str) -> str:
    """A page of Dagster's UI; the path alone if DAGSTER_UI_URL does not say where the UI is."""
    return f"{os.environ.get('DAGSTER_UI_URL', '').rstrip('/')}/{path}"


def _headline(ended: Ended, failed: Sequence[dg.AssetCheckEvaluation]) -> str:
    if ended.run.status == dg.DagsterRunStatus.CANCELED:
        return f"{ended.subject}: {'stopped' if is_stopped(ended.run) else 'canceled'}"
    if ended.run.status == dg.DagsterRunStatus.FAILURE:
        return f"{ended.subject}: failed" + (f" at {ended.step_error[0].split('/')[-1]}" if ended.step_error else "")
    if not failed:
        return f"{ended.subject}: succeeded"
    what = f"check {failed[0].check_name}" if len(failed) == 1 else f"{len(failed)} checks"
    return f"{ended.subject}: {what} failed"


def _check(evaluation: dg.AssetCheckEvaluation) -> str:
    figures = [
        f"{name}: {evaluation.metadata[name].value}" for name in ("observed", "expected") if name in evaluation.metadata
    ]
    what = f"{evaluation.asset_key.to_user_string()} {evaluation.check_name} ({evaluation.severity.value})"
    return "; ".join([f"{what}: {evaluation.description or 'failed'}", *figures])


def _error(ended: Ended, failed: Sequence[dg.AssetCheckEvaluation]) -> list[str]:
    """Why the run failed, unless a check says so: a blocking check fails its step with the same message."""
    if ended.load_error:
        return [f"its code does not load: {' '.join(ended.load_error.split())}; see batch-scoring doctor {ended.topic}"]
    if ended.step_error is None:
        return [failed_runs.in_words(ended.last_words)]
    step, error = ended.step_error
    if any(evaluation.description and evaluation.description in error for evaluation in failed):
        return []
    return [f"{step}: {error.splitlines()[0]}"]


def _outlook(instance: dg.DagsterInstance, run: dg.DagsterRun, failure: FailureClass | None) -> list[str]:
    """Whether the day is retried, for a failed run that a sensor has requested."""
    if ATTEMPT not in run.tags:
        return []
    if run.job_name.startswith("export_"):
        return [_outlook_of_export(run, failure)]
    pipeline, day = run.job_name.removeprefix("score_"), run.tags[PARTITION]
    until = "other files or other code arrive" if failure in retry_policy.FINAL else "somebody runs it"
    is_in_pods = instance.run_launcher.supports_check_run_worker_health
    command = f"submit {pipeline} --day {day}" if is_in_pods else f"backfill {pipeline} {day} {day}"
    return [f"not tried again until {until}; by hand: batch-scoring {command}"]


def _outlook_of_export(run: dg.DagsterRun, failure: FailureClass | None) -> str:
    """Whether an export is tried again; the scores are published in any case."""
    pipeline, day = run.job_name.removeprefix("export_"), run.tags[PARTITION]
    names = sorted(key.path[-1].removeprefix("export_") for key in run.asset_selection or ())
    command = " ".join(["batch-scoring export", pipeline, *names, day, day])
    if failure in retry_policy.FINAL:
        until = "the day or the export's settings change, or the code server restarts"
        return f"not tried again until {until}; by hand: {command}"
    return f"tried again every hour, and of itself once the sink is back; by hand: {command}"


def _streak(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """How many runs of the same work have failed in a row, if more than this one; else empty."""
    filters = dg.RunsFilter(
        job_name=run.job_name,
        tags={PARTITION: run.tags[PARTITION]} if PARTITION in run.tags else {},
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
    )
    earlier = instance.get_run_records(filters, limit=MOST_RUNS, cursor=run.run_id)  # newest first
    same = (
        record
        for record in earlier
        if record.dagster_run.asset_selection == run.asset_selection
        and record.dagster_run.tags.get(PARTITION) == run.tags.get(PARTITION)
    )
    failed = list(itertools.takewhile(lambda record: not record.dagster_run.is_success, same))
    if not failed:
        return ""
    since = datetime.fromtimestamp(failed[-1].end_time or failed[-1].create_timestamp.timestamp(), UTC)
    return f"keeps failing: {len(failed) + 1} failed runs in a row since {stamp(since)}"
