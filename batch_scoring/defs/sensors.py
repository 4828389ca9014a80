"""Sensors: a pipeline's landing folder, its queue, its exports, broken pipelines, alerts and dead runs.

A sensor reads its cursor, asks `operations` what to do, and returns that to Dagster.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence

import dagster as dg

from batch_scoring.config.loader import BrokenPipeline, errors_of
from batch_scoring.config.names import (
    broken_name,
    events_name,
    export_asset,
    exports_job_name,
    job_name,
    uploads_name,
)
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.metadata import asset_key
from batch_scoring.delivery.exports import pending
from batch_scoring.delivery.exports.pending import PendingDay
from batch_scoring.errors import SpecError
from batch_scoring.operations import export_runs, run_history
from batch_scoring.operations.alerting import collector
from batch_scoring.operations.automation import export_planner, landing_scan, sensor_status, sqs
from batch_scoring.operations.automation.export_planner import Limits
from batch_scoring.operations.automation.landing_scan import Tick
from batch_scoring.operations.automation.planner import TickState
from batch_scoring.operations.dead_runs import end_dead_runs
from batch_scoring.operations.export_runs import ExportRun
from batch_scoring.runtime.printable import cleaned, printable
from batch_scoring.storage.state_look import StateLook


@dg.sensor(
    name="dead_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks runs as failed whose process on this machine is gone: they would occupy a slot for hours.",
)
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Mark runs without a process as failed. Requests no runs."""
    ended = end_dead_runs(context.instance)
    return dg.SkipReason(f"marked as failed: {', '.join(ended)}" if ended else "every started run has its process")


def broken_sensor(broken: BrokenPipeline) -> dg.SensorDefinition:
    """Placeholder in the UI for a pipeline that is left out of the deployment: always fails, with the reasons."""

    @dg.sensor(
        name=broken_name(broken.name),
        minimum_interval_seconds=600,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"The pipeline {broken.name} is left out of the deployment: {'; '.join(broken.errors)}",
    )
    def _is_broken(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        raise SpecError(list(broken.errors))

    return _is_broken


def alerts_sensor(pipelines: Sequence[Pipeline], broken: Sequence[BrokenPipeline] = ()) -> dg.SensorDefinition:
    """Send alerts for the whole deployment. Requests no runs."""

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Alerts the channels of ALERT_URLS to failed runs, failed checks, late days and broken pipelines, "
        "once each.",
    )
    def _alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        with cleaned():
            return dg.SkipReason(printable(collector.tick(context.instance, pipelines, context.log, broken)))

    return _alerts


def uploads_sensor(pipeline: Pipeline) -> dg.SensorDefinition:
    """Score the days that are not up to date with their files in the landing folder."""
    settings = pipeline.spec.uploads

    @dg.sensor(
        name=uploads_name(pipeline),
        job_name=job_name(pipeline),
        minimum_interval_seconds=settings.interval_seconds,
        default_status=_default_status(settings.default_status),
        description=f"Scores the days whose files in {pipeline.landing.uri} are new or changed, one run per day.",
    )
    def _uploads(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        memory = TickState.read(context.cursor)
        with cleaned():
            return _result(pipeline, landing_scan.tick(pipeline, context.instance, memory), context)

    return _uploads


def events_sensor(pipeline: Pipeline, pipelines: Sequence[Pipeline]) -> dg.SensorDefinition:
    """Score the days that the queue's messages name, by the same rules."""
    settings = pipeline.spec.events

    @dg.sensor(
        name=events_name(pipeline),
        job_name=job_name(pipeline),
        minimum_interval_seconds=settings.interval_seconds,
        default_status=_default_status(settings.default_status),
        description=f"Scores the days named by messages of {settings.queue} whose files are new or changed.",
    )
    def _events(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        memory = TickState.read(context.cursor)
        with cleaned():
            return _result(pipeline, sqs.tick(pipeline, pipelines, context.instance, memory, context.log), context)

    return _events


def exports_sensor(pipeline: Pipeline) -> dg.SensorDefinition:
    """Export the days whose receipts are not of what is published."""
    ((name, status),) = sensor_status.exports_sensor_of(pipeline).items()

    @dg.sensor(
        name=name,
        job_name=exports_job_name(pipeline),
        minimum_interval_seconds=30,
        default_status=_default_status(status),
        description=f"Exports published days of {pipeline.name} to their sinks, one run per export and day.",
    )
    def _exports(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        with cleaned():
            return _export_result(pipeline, context.instance)

    return _exports


def _export_result(pipeline: Pipeline, instance: dg.DagsterInstance) -> dg.SensorResult:
    """Run requests of a tick.

    Raises:
        SpecError: the pipeline's files have changed since they were loaded and are broken now; its runs would fail.
    """
    runs = functools.cache(lambda: export_runs.of_pipeline(instance, pipeline))
    active = [name for name, export in pipeline.spec.exports.items() if export.default_status == "running"]
    look = StateLook(pipeline.output)
    found = [_next_export(pipeline, name, pending.recent(pipeline, name, look), runs, instance) for name in active]
    requests = [one for one in found if isinstance(one, dg.RunRequest)]
    if requests and (errors := errors_of(pipeline)):
        raise SpecError(errors)
    waiting = "; ".join(one for one in found if isinstance(one, str) and one)
    reason = dg.SkipReason(printable(waiting or "every recent day is exported as published"))
    return dg.SensorResult(run_requests=requests or None, skip_reason=None if requests else reason)


def _next_export(
    pipeline: Pipeline,
    name: str,
    behind: Sequence[PendingDay],
    runs: Callable[[], Mapping[str, Sequence[ExportRun]]],
    instance: dg.DagsterInstance,
) -> dg.RunRequest | str:
    """The run request of an export, or why there is none; empty if no day is behind."""
    ready = {day.day: day for day in behind if not day.waits_for}
    if not ready:
        return "; ".join(f"{name} {day.day}: {day.waits_for}" for day in behind)
    bounds = landing_scan.bounds_of(pipeline, instance)
    limits = Limits(bounds.pauses, bounds.max_runtime, run_history.LOADED_AT)
    versions = {day: pending_day.version for day, pending_day in ready.items()}
    request, reason = export_planner.plan(name, versions, runs()[name], time.time(), limits)
    if request is None:
        return f"{name}: {reason}"
    return dg.RunRequest(
        run_key=request.run_key,
        partition_key=request.day,
        asset_selection=[asset_key(pipeline, export_asset(name))],
        tags={
            export_runs.VERSION: versions[request.day],
            run_history.ATTEMPT: str(request.attempt),
            "batch_scoring/why": ready[request.day].why,
        },
    )


def _default_status(name: str) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if name == "running" else dg.DefaultSensorStatus.STOPPED


def _result(pipeline: Pipeline, tick: Tick, context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Run requests, observations and cursor of a tick.

    Raises:
        SpecError: the pipeline's files have changed since they were loaded and are broken now; its runs would fail.
    """
    summary = printable(tick.summary)
    context.log.info(summary)
    if tick.plan.requests and (errors := errors_of(pipeline)):
        raise SpecError(errors)
    code = run_history.current_code(pipeline)
    requests = [
        dg.RunRequest(
            run_key=request.run_key,
            partition_key=request.day,
            tags={
                run_history.FINGERPRINT: request.fingerprint,
                run_history.CODE: code,
                run_history.ATTEMPT: str(request.attempt),
                "batch_scoring/why": printable(request.why),
                "dagster/priority": str(request.priority),
                # Dagster retries a run that dies, up to the attempts that are left
                "dagster/max_retries": str(max(0, pipeline.spec.runs.retries + 1 - request.attempt)),
            },
        )
        for request in tick.plan.requests
    ]
    observations = [
        dg.AssetObservation(
            asset_key(pipeline, "raw_input"),
            description=printable(report.text),
            metadata={"key": printable(report.name)},
        )
        for report in tick.plan.reports
    ]
    return dg.SensorResult(
        run_requests=requests or None,
        skip_reason=None if requests else dg.SkipReason(summary),
        cursor=tick.plan.memory.model_dump_json(),
        asset_events=observations,
    )
