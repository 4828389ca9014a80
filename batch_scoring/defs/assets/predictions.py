"""The asset predictions: one scored row per key, published for the whole day at once.

A day is scored in one step, or in several (`scoring.shards: fan_out`): plan -> score, one step per chunk -> publish.
The work in `daily/score.py` is the same, and so are the rows, bit by bit, the checks and the commit.
"""

from typing import Any

import dagster as dg
import numpy as np

from batch_scoring.config import compute
from batch_scoring.config.names import DECISIONS
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import DayStep, Prepared
from batch_scoring.daily.score import Source, check_current, prepare, read_source
from batch_scoring.daily.shard_stats import BINS
from batch_scoring.daily.tables import predictions_table
from batch_scoring.defs.asset_checks import report, specs
from batch_scoring.defs.assets.fan_out import Results, in_steps
from batch_scoring.defs.execution.step_pods import step_options
from batch_scoring.defs.metadata import (
    SCORED_FROM,
    CatalogOptions,
    asset_key,
    catalog_options,
    column_schema,
    cost_figures,
    data_version,
    days,
    figures,
    preview,
    ui_table,
)
from batch_scoring.defs.step_run import step_run
from batch_scoring.monitoring.charts import histogram
from batch_scoring.monitoring.checks import prediction_checks
from batch_scoring.operations.batch_backoff import batch_backoff
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.state import PublishedDay


def predictions(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""
    if pipeline.spec.scoring.shards == "fan_out":
        return in_steps(pipeline, publish, **_definition(pipeline))
    reserved = compute.reservation(pipeline, "predictions")

    @dg.asset(
        deps=[asset_key(pipeline, name) for name in SCORED_FROM],
        **_definition(pipeline),
        **step_options(pipeline, "predictions"),
    )
    def _predictions(context: dg.AssetExecutionContext) -> Results:
        with step_run(context, pipeline, reserved) as run:
            step = DayStep(pipeline, context.partition_key, "predictions")
            source = read_source(step)
            halved = batch_backoff(context.instance, pipeline, context.partition_key, context.retry_number)
            yield from publish(step, source, prepare(step, source, run, halved), run)

    return _predictions


class _Definition(CatalogOptions):
    key: dg.AssetKey
    description: str
    partitions_def: dg.PartitionsDefinition[str]
    check_specs: list[dg.AssetCheckSpec]
    code_version: str
    metadata: dict[str, Any]


def _definition(pipeline: Pipeline) -> _Definition:
    """Arguments of the asset, whether it has one step or several."""
    key = asset_key(pipeline, "predictions")
    return {
        "key": key,
        "description": f"{pipeline.spec.description}\n\n{__doc__}",
        "partitions_def": days(pipeline),
        "check_specs": specs(pipeline, key, prediction_checks.CHECKS, days(pipeline)),
        "code_version": pipeline.scoring_code,
        "metadata": {
            "dagster/column_schema": _columns(pipeline),
            "dagster/uri": predictions_table(pipeline).folder.uri,
            "dagster/table_name": f"{pipeline.name}.predictions",
        },
        **catalog_options(pipeline, kinds={"pytorch", "deltalake"}),
    }


def publish(step: DayStep, source: Source, prepared: Prepared, run: StepContext) -> Results:
    """Report the findings of the checks, then commit the day unless a blocking one failed."""
    pipeline, key = step.pipeline, asset_key(step.pipeline, "predictions")
    findings = prediction_checks.findings(step, prepared, source.features, source.model)
    yield from report(pipeline, key, findings, run.id, step.day)
    published_day, committed = step.publish(
        prepared,
        run,
        fingerprint=source.features.fingerprint,
        code=pipeline.scoring_code,
        model=source.model,
        features_code=source.features.code,
        followed_by=(DECISIONS,) if pipeline.spec.decisions else (),
        check_current=lambda: check_current(step, source),
    )
    metadata = predictions_metadata(step, prepared, published_day, committed) | figures(run, published_day.rows_in)
    metadata |= cost_figures(pipeline, published_day)
    yield dg.MaterializeResult(metadata=metadata, data_version=data_version(published_day))


def predictions_metadata(
    step: DayStep, prepared: Prepared, published_day: PublishedDay, committed: bool
) -> dict[str, dg.MetadataValue]:
    """Metadata of the day's predictions for an operator."""
    histograms = [shard.histogram for shard in published_day.shards if shard.histogram] or [(0,) * BINS]
    bins = np.sum(histograms, axis=0).tolist()
    means = {
        f"mean_{column}": dg.MetadataValue.float(published_day.moments(column).mean)
        for column in sorted({column for shard in published_day.shards for column in shard.sums})
        if published_day.rows
    }
    unknown = [
        {"column": column, "value": value, "rows": rows}
        for shard in published_day.shards
        for column, values in shard.unknown.items()
        for value, rows in values.items()
    ]
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(published_day.rows),
        "dagster/size_bytes": dg.MetadataValue.int(published_day.table.bytes),
        "rows_in": dg.MetadataValue.int(published_day.rows_in),
        "rows_scored": dg.MetadataValue.int(published_day.rows),
        "rows_quarantined": dg.MetadataValue.int(published_day.rows_quarantined),
        **means,
        "model_version": dg.MetadataValue.text(published_day.model_version or ""),
        "model_sha256": dg.MetadataValue.text(published_day.model_sha256 or ""),
        **prepared.settings,
        "files": dg.MetadataValue.int(len(published_day.table.files)),
        "shards_reused": dg.MetadataValue.int(prepared.reused),
        "committed": dg.MetadataValue.bool(committed),
        "table_version": dg.MetadataValue.int(published_day.table.version),
        "fingerprint": dg.MetadataValue.text(published_day.fingerprint),
        **({"unknown_categories": ui_table(unknown)} if unknown else {}),
        **({"scores": histogram(bins, "scores")} if any(bins) else {}),
        **preview(step, published_day),
    }


def _columns(pipeline: Pipeline) -> dg.TableSchema:
    return column_schema(
        [
            (pipeline.spec.input.key, "key", "identifies the row; unique within a day"),
            (
                "prediction",
                "int64",
                "the likeliest class, as its position in the bundle (a regression: the value, float64)",
            ),
            ("prediction_proba", "float32", "probability of that class"),
            ("prob_class_0 …", "float32", "probability of each class"),
            ("model_version", "string", "version of the model that scored the row"),
            ("scored_at", "timestamp", "start of the run that scored the row, UTC"),
            ("dt", "date", "the day"),
        ]
    )
