"""A pipeline's jobs: score a day, export it, build a month's report, apply retention."""

import dagster as dg

from batch_scoring.config.names import (
    daily_assets,
    export_asset,
    exports_job_name,
    job_name,
    report_job_name,
    retention_job_name,
)
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.dagster_internals import UnresolvedAssetJobDefinition
from batch_scoring.defs.metadata import asset_key


def score_job(pipeline: Pipeline) -> UnresolvedAssetJobDefinition:
    """Score one day: the active model, the day's input, its features, its predictions."""
    return dg.define_asset_job(
        job_name(pipeline),
        selection=[asset_key(pipeline, name) for name in daily_assets(pipeline)],
        description=f"Score one day of {pipeline.name}.",
        tags={
            "dagster/max_runtime": str(round(pipeline.spec.runs.max_hours * 3600)),
            "dagster/max_retries": str(pipeline.spec.runs.retries),
        },
    )


def exports_job(pipeline: Pipeline) -> UnresolvedAssetJobDefinition:
    """Export one day, a step for each export: one that fails does not stop the others. Never part of a scoring run."""
    return dg.define_asset_job(
        exports_job_name(pipeline),
        selection=[asset_key(pipeline, export_asset(name)) for name in pipeline.spec.exports],
        description=f"Export one day of {pipeline.name} to its sinks.",
        tags={
            "dagster/max_runtime": str(round(pipeline.spec.runs.max_hours * 3600)),
            "dagster/max_retries": "0",  # the sensor tries again, after a pause
        },
    )


def report_job(pipeline: Pipeline) -> UnresolvedAssetJobDefinition:
    """Build one month's report from what the state holds at that moment."""
    return dg.define_asset_job(
        report_job_name(pipeline),
        selection=[asset_key(pipeline, "report")],
        description=f"Build the report of one month of {pipeline.name}.",
    )


def retention_job(pipeline: Pipeline) -> UnresolvedAssetJobDefinition:
    """Count the files that retention may delete; delete them if the run's config says `dry_run: false`."""
    return dg.define_asset_job(
        retention_job_name(pipeline),
        selection=[asset_key(pipeline, "retention")],
        description=f"Count the files of {pipeline.name} that retention may delete. "
        "Deletes them only if the run's config says dry_run: false.",
    )
