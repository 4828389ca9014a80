"""A pipeline's schedules: daily scoring, the monthly report, retention; and placeholders for a broken pipeline."""

from datetime import UTC
from zoneinfo import ZoneInfo

import dagster as dg

from batch_scoring.config.loader import BrokenPipeline
from batch_scoring.config.names import broken_name, job_name, report_job_name, retention_job_name, schedule_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import Schedule
from batch_scoring.defs.metadata import asset_key
from batch_scoring.errors import SpecError
from batch_scoring.operations.automation import schedule_days
from batch_scoring.operations.automation.planner import LATE, NOW


def score_schedule(pipeline: Pipeline) -> dg.ScheduleDefinition:
    """Score the days that are due at a time of day, whether or not their files have landed."""
    settings, partitions = pipeline.spec.schedule, pipeline.spec.partitions
    timezone, zone = settings.timezone or partitions.timezone, ZoneInfo(partitions.timezone)

    @dg.schedule(
        name=schedule_name(job_name(pipeline)),
        job_name=job_name(pipeline),
        cron_schedule=settings.cron,
        execution_timezone=timezone,
        default_status=_default_status(settings.default_status),
        description=f"{schedule_days.in_words(settings.cron, timezone)}: scores "
        f"{schedule_days.days_in_words(settings.days_back, partitions.timezone)}, one run per day, "
        "whatever has landed.",
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
    """Rebuild the month's report once a day."""
    partitions = pipeline.spec.partitions
    zone = ZoneInfo(partitions.timezone)

    @dg.schedule(
        name=schedule_name(report_job_name(pipeline)),
        job_name=report_job_name(pipeline),
        cron_schedule=schedule_days.PAGE_CRON,
        execution_timezone=partitions.timezone,
        description=f"{schedule_days.in_words(schedule_days.PAGE_CRON, partitions.timezone)}: builds the report "
        "of the month that the previous day belongs to.",
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
    """Apply retention once a day."""
    timezone = pipeline.spec.partitions.timezone
    step = asset_key(pipeline, "retention").to_python_identifier()

    @dg.schedule(
        name=schedule_name(retention_job_name(pipeline)),
        job_name=retention_job_name(pipeline),
        cron_schedule=schedule_days.RETENTION_CRON,
        execution_timezone=timezone,
        default_status=_default_status(pipeline.spec.retention.default_status),
        description=f"{schedule_days.in_words(schedule_days.RETENTION_CRON, timezone)}: deletes files that are older "
        "than the spec's retention section allows.",
    )
    def _retain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(
            run_key=context.scheduled_execution_time.astimezone(UTC).isoformat(),
            run_config={"ops": {step: {"config": {"dry_run": False}}}},
            tags={"batch_scoring/why": "scheduled"},
        )

    return _retain


def broken_schedules(broken: BrokenPipeline) -> list[dg.ScheduleDefinition]:
    """Placeholders for the schedules of a broken pipeline; they never request a run.

    Without them Dagster would forget within twelve hours that somebody has switched the schedules on.
    """
    if broken_name(broken.name) != f"{broken.name}_is_broken":
        return []  # Dagster refuses the folder's name, so there was never a schedule
    crons = {
        "score": Schedule().cron,
        "report": schedule_days.PAGE_CRON,
        "retain": schedule_days.RETENTION_CRON,
    }
    empty = dg.GraphDefinition(name=broken_name(broken.name), node_defs=[]).to_job()

    def placeholder(job: str, cron: str) -> dg.ScheduleDefinition:
        @dg.schedule(
            name=schedule_name(job),
            job=empty,
            cron_schedule=cron,
            description=f"Waits: the pipeline {broken.name} is left out of the deployment.",
        )
        def _placeholder(context: dg.ScheduleEvaluationContext) -> dg.SkipReason:
            raise SpecError(list(broken.errors))

        return _placeholder

    return [placeholder(f"{kind}_{broken.name}", cron) for kind, cron in crons.items()]


def _default_status(status: str) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if status == "running" else dg.DefaultScheduleStatus.STOPPED


def _too_early(what: str, pipeline: Pipeline) -> dg.SkipReason:
    first = pipeline.spec.partitions.start
    return dg.SkipReason(f"{what} is before the pipeline's first day, {first} (partitions.start in the spec)")
