"""The asset report: a month of a pipeline on one HTML page, `reports/month=YYYY-MM.html`.

It is read from the state, never from the Dagster instance or the tables: findings of the checks, published days,
distances to the model's reference, failed runs of the last 30 days. The page can be drawn at any time, also for the
current month.
"""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.metadata import asset_key, asset_options
from batch_scoring.defs.step_run import step_run
from batch_scoring.monitoring.cost import in_words
from batch_scoring.monitoring.links import link, month_page
from batch_scoring.monitoring.report import page
from batch_scoring.monitoring.report.month import gather
from batch_scoring.monitoring.report.page import Month


def months(pipeline: Pipeline) -> dg.MonthlyPartitionsDefinition:
    """The pipeline's months, the current one included, named by their first day."""
    partitions = pipeline.spec.partitions
    first = partitions.start.replace(day=1)  # for a start within a month, Dagster would leave that month out
    return dg.MonthlyPartitionsDefinition(first.isoformat(), timezone=partitions.timezone, end_offset=1)


def report(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""
    # days of the month that lie in the future, or before the start, need not exist upstream
    predictions = dg.AssetDep(
        asset_key(pipeline, "predictions"),
        partition_mapping=dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True),
    )

    @dg.asset(
        key=asset_key(pipeline, "report"),
        description=__doc__,
        deps=[predictions],
        partitions_def=months(pipeline),
        **asset_options(pipeline, "report", kinds={"plotly"}),
    )
    def _report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        with step_run(context, pipeline) as run:
            month = gather(pipeline, context.partition_key[:7], datetime.now(UTC), run.id)
            path = month_page(month.month)
            pipeline.output.put(path, page.draw(month))
            return dg.MaterializeResult(metadata={"report": link(pipeline, path), **report_metadata(month)})

    return _report


def report_metadata(month: Month) -> dict[str, dg.MetadataValue]:
    """Figures of the month for an operator."""
    days = {f"days_{status}": dg.MetadataValue.int(len(month.of_status(status))) for status in page.STATUSES}
    return {
        "summary": dg.MetadataValue.text(page.summary(month)),
        **days,
        "rows_scored": dg.MetadataValue.int(month.scored),
        "rows_quarantined": dg.MetadataValue.int(month.quarantined),
        "failed_runs_30_days": dg.MetadataValue.int(len(month.failed.failures)),
        "models": dg.MetadataValue.text(", ".join(month.models)),
        "cost": dg.MetadataValue.text(in_words(month.cost)),
    }
