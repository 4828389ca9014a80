"""What runs the assets and looks after their runs."""

from collections.abc import Sequence
from datetime import UTC
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from batch_scoring.config.pipeline import Broken, Pipeline, faults_of
from batch_scoring.config.spec import Schedule
from batch_scoring.defs.metadata import asset_key
from batch_scoring.errors import SpecError
from batch_scoring.operations import run_history
from batch_scoring.operations.alerting import collector
from batch_scoring.operations.automation import landing_scan, schedule_days, sensor_status, sqs
from batch_scoring.operations.automation.landing_scan import Tick
from batch_scoring.operations.automation.planner import LATE, NOW, Memory
from batch_scoring.operations.dead_runs import end_dead_runs
from batch_scoring.runtime.printable import cleaned, printable

STEPS = ("model", "raw_input", "validated_features", "predictions")


def job_name(pipeline: Pipeline) -> str:
    """`score_<pipeline>`."""
    return f"score_{pipeline.name}"


def score_job(pipeline: Pipeline) -> UnresolvedAssetJobDefinition:
    """Score one day: the model in force, the day's input, its features, its predictions."""
    return dg.define_asset_job(
        job_name(pipeline),
        selection=[asset_key(pipeline, name) for name in STEPS],
        description=f"Score one day of {pipeline.name}.",
        tags={
            "dagster/max_runtime": str(round(pipeline.spec.runs.max_hours * 3600)),
            "dagster/max_retries": str(pipeline.spec.runs.retries),
        },
    )


def report_job_name(pipeline: Pipeline) -> str:
    """`report_<pipeline>`."""
    return f"report_{pipeline.name}"


def report_job(pipeline: Pipeline) -> UnresolvedAssetJobDefinition:
    """Draw one month's page, from what the state holds at that moment."""
    return dg.define_asset_job(
        report_job_name(pipeline),
        selection=[asset_key(pipeline, "report")],
        description=f"Draw the page of a month of {pipeline.name}.",
    )


def retention_job_name(pipeline: Pipeline) -> str:
    """`retain_<pipeline>`."""
    return f"retain_{pipeline.name}"


def retention_job(pipeline: Pipeline) -> UnresolvedAssetJobDefinition:
    """Count what nobody needs any more; delete it if the run's config says `dry_run: false`."""
    return dg.define_asset_job(
        retention_job_name(pipeline),
        selection=[asset_key(pipeline, "retention")],
        description=f"Count, or delete, what of {pipeline.name} nobody needs any more. Only counts unless configured.",
    )


def score_schedule(pipeline: Pipeline) -> dg.ScheduleDefinition:
    """Score the days that are due by the clock, whatever has landed."""
    settings, partitions = pipeline.spec.schedule, pipeline.spec.partitions
    timezone, zone = settings.timezone or partitions.timezone, ZoneInfo(partitions.timezone)
    is_running = settings.default_status == "running"

    @dg.schedule(
        name=f"{job_name(pipeline)}_on_schedule",
        job_name=job_name(pipeline),
        cron_schedule=settings.cron,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if is_running else dg.DefaultScheduleStatus.STOPPED,
        description=f"{schedule_days.in_words(settings.cron, timezone)}: scores "
        f"{schedule_days.days_in_words(settings.days_back, partitions.timezone)}, a run a day, whatever has landed.",
    )
    def _score(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        scheduled = context.scheduled_execution_time
        before = schedule_days.tick_before(scheduled, settings.cron, timezone)
        days = schedule_days.days_of_tick(scheduled, before, settings.days_back, zone, partitions.start)
        if not days:
            return _too_early(str(schedule_days.newest_day(scheduled, settings.days_back, zone)), pipeline)
        return [
            dg.RunRequest(
                run_key=f"{day} at {scheduled.astimezone(UTC).isoformat()}",
                partition_key=str(day),
                tags={"batch_scoring/why": "scheduled", "dagster/priority": str(NOW if day == max(days) else LATE)},
            )
            for day in days
        ]

    return _score


def report_schedule(pipeline: Pipeline) -> dg.ScheduleDefinition:
    """Draw the page of the month anew, once a day."""
    partitions = pipeline.spec.partitions
    zone = ZoneInfo(partitions.timezone)

    @dg.schedule(
        name=f"{report_job_name(pipeline)}_on_schedule",
        job_name=report_job_name(pipeline),
        cron_schedule=schedule_days.PAGE_CRON,
        execution_timezone=partitions.timezone,
        description=f"{schedule_days.in_words(schedule_days.PAGE_CRON, partitions.timezone)}: draws the page "
        "of the month in which the day before lies.",
    )
    def _report(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        scheduled = context.scheduled_execution_time
        month = schedule_days.month_of_tick(scheduled, zone)
        if month < partitions.start.replace(day=1):
            return _too_early(f"{month:%Y-%m}", pipeline)
        return dg.RunRequest(
            run_key=f"{month:%Y-%m} at {scheduled.astimezone(UTC).isoformat()}",
            partition_key=str(month),
            tags={"batch_scoring/why": "scheduled"},
        )

    return _report


def retention_schedule(pipeline: Pipeline) -> dg.ScheduleDefinition:
    """Delete what nobody needs any more, once a day."""
    timezone = pipeline.spec.partitions.timezone
    is_running = pipeline.spec.retention.default_status == "running"
    step = asset_key(pipeline, "retention").to_python_identifier()

    @dg.schedule(
        name=f"{retention_job_name(pipeline)}_on_schedule",
        job_name=retention_job_name(pipeline),
        cron_schedule=schedule_days.RETENTION_CRON,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if is_running else dg.DefaultScheduleStatus.STOPPED,
        description=f"{schedule_days.in_words(schedule_days.RETENTION_CRON, timezone)}: deletes what nobody needs "
        "any more, after the days that the spec names.",
    )
    def _retain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(
            run_key=context.scheduled_execution_time.astimezone(UTC).isoformat(),
            run_config={"ops": {step: {"config": {"dry_run": False}}}},
            tags={"batch_scoring/why": "scheduled"},
        )

    return _retain


def _too_early(what: str, pipeline: Pipeline) -> dg.SkipReason:
    first = pipeline.spec.partitions.start
    return dg.SkipReason(f"{what} is before the pipeline's first day, {first}; partitions.start in the spec says so")


@dg.sensor(
    name="dead_runs",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks runs as failed whose process on this machine is gone; else they hold their slot for hours.",
)
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """The sensor of the deployment; it requests no runs."""
    ended = end_dead_runs(context.instance)
    return dg.SkipReason(f"marked as failed: {', '.join(ended)}" if ended else "every started run has its process")


def broken_sensor(broken: Broken) -> dg.SensorDefinition:
    """What the UI has of a pipeline that is left out of the deployment: a sensor that fails, and says why."""

    @dg.sensor(
        name=sensor_status.broken_name(broken.name),
        minimum_interval_seconds=600,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"The pipeline {broken.name} is left out of the deployment: {'; '.join(broken.faults)}",
    )
    def _is_broken(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        raise SpecError(list(broken.faults))

    return _is_broken


def broken_schedules(broken: Broken) -> list[dg.ScheduleDefinition]:
    """The schedules of a pipeline that is left out, in name alone; none of them asks for a run.

    Dagster forgets within twelve hours that a schedule was switched on which its code location no longer has.
    """
    crons = {
        "score": Schedule().cron,
        "report": schedule_days.PAGE_CRON,
        "retain": schedule_days.RETENTION_CRON,
    }
    nothing = dg.GraphDefinition(name=sensor_status.broken_name(broken.name), node_defs=[]).to_job()

    def stand_in(kind: str, cron: str) -> dg.ScheduleDefinition:
        @dg.schedule(
            name=f"{kind}_{broken.name}_on_schedule",
            job=nothing,
            cron_schedule=cron,
            description=f"Waits: the pipeline {broken.name} is left out of the deployment.",
        )
        def _stand_in(context: dg.ScheduleEvaluationContext) -> dg.SkipReason:
            raise SpecError(list(broken.faults))

        return _stand_in

    was_sound = sensor_status.broken_name(broken.name) == f"{broken.name}_is_broken"  # else it had no schedule either
    return [stand_in(kind, cron) for kind, cron in crons.items()] if was_sound else []


def alerts_sensor(pipelines: Sequence[Pipeline], broken: Sequence[Broken] = ()) -> dg.SensorDefinition:
    """The sensor of the deployment that tells people; it requests no runs."""

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the channels of ALERT_URLS of failed runs, failed checks, late days and pipelines that are "
        "left out, each once.",
    )
    def _alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        with cleaned():
            return dg.SkipReason(printable(collector.tick(context.instance, pipelines, context.log, broken)))

    return _alerts


def uploads_sensor(pipeline: Pipeline) -> dg.SensorDefinition:
    """Score the days whose files in the landing folder are not those with which they are settled."""
    settings = pipeline.spec.uploads

    @dg.sensor(
        name=sensor_status.uploads_name(pipeline),
        job_name=job_name(pipeline),
        minimum_interval_seconds=settings.interval_seconds,
        default_status=_sensor_status(settings.default_status),
        description=f"Scores what is new or changed in {pipeline.landing.uri}, a run a day.",
    )
    def _uploads(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        with cleaned():
            return _requested(
                pipeline, landing_scan.tick(pipeline, context.instance, Memory.read(context.cursor)), context
            )

    return _uploads


def events_sensor(pipeline: Pipeline, pipelines: Sequence[Pipeline]) -> dg.SensorDefinition:
    """Score the days that the messages of the spec's queue name, by the same rules."""
    settings = pipeline.spec.events

    @dg.sensor(
        name=sensor_status.events_name(pipeline),
        job_name=job_name(pipeline),
        minimum_interval_seconds=settings.interval_seconds,
        default_status=_sensor_status(settings.default_status),
        description=f"Scores the days that the messages of {settings.queue} name, if they are new or changed.",
    )
    def _events(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        memory = Memory.read(context.cursor)
        with cleaned():
            return _requested(pipeline, sqs.tick(pipeline, pipelines, context.instance, memory, context.log), context)

    return _events


def _sensor_status(name: str) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if name == "running" else dg.DefaultSensorStatus.STOPPED


def _requested(pipeline: Pipeline, tick: Tick, context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """What a tick has decided, as Dagster takes it.

    Raises:
        SpecError: the pipeline's files have been changed and are broken now; its runs would load them, and die.
    """
    summary = printable(tick.summary)
    context.log.info(summary)
    if tick.plan.requests and (faults := faults_of(pipeline)):
        raise SpecError(faults)
    code = run_history.code_in_force(pipeline)
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
                # a run that dies is run again by Dagster: as often as there are tries left
                "dagster/max_retries": str(max(0, pipeline.spec.runs.retries + 1 - request.attempt)),
            },
        )
        for request in tick.plan.requests
    ]
    observed = [
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
        asset_events=observed,
    )
