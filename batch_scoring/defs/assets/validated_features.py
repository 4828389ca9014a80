"""The asset validated_features: the day's accepted rows, typed, one row per key; the others go to the quarantine.

Each landing file is cut into shards of `scoring.rows_per_shard` rows. Files are read newest first, so that of rows
with equal keys the newest file's is accepted (within a file the first), whatever the files are called.
"""

from collections.abc import Iterator

import dagster as dg

from batch_scoring.config import compute
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.validation.spec_validation import schema_columns
from batch_scoring.daily.publish import DayStep, Prepared, check_input
from batch_scoring.daily.tables import features_table
from batch_scoring.daily.validate import prepare
from batch_scoring.defs.asset_checks import report, specs
from batch_scoring.defs.metadata import (
    asset_key,
    asset_options,
    column_schema,
    cost_figures,
    data_version,
    days,
    figures,
    preview,
    ui_table,
)
from batch_scoring.defs.step_run import step_run
from batch_scoring.monitoring.checks import feature_checks
from batch_scoring.monitoring.checks.feature_checks import rejected_by_reason
from batch_scoring.operations.batch_backoff import batch_backoff
from batch_scoring.storage.state import PublishedDay


def validated_features(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""
    key, code = asset_key(pipeline, "validated_features"), pipeline.features_code
    reserved = compute.reservation(pipeline, "validated_features")

    @dg.asset(
        key=key,
        description=f"{__doc__}\n\nOne row per `{pipeline.spec.input.key}` and day: exactly what the model will see"
        + (", and the attributes, which it will not see." if pipeline.spec.input.attributes else "."),
        deps=[asset_key(pipeline, "raw_input")],
        partitions_def=days(pipeline),
        check_specs=specs(pipeline, key, feature_checks.CHECKS, days(pipeline)),
        code_version=code,
        metadata={
            "dagster/column_schema": _columns(pipeline),
            "dagster/uri": features_table(pipeline).folder.uri,
            "dagster/table_name": f"{pipeline.name}.validated_features",
        },
        **asset_options(pipeline, "validated_features", kinds={"pandera", "deltalake"}),
    )
    def _validated_features(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        with step_run(context, pipeline, reserved) as run:
            step = DayStep(pipeline, context.partition_key, "validated_features")
            pinned = step.state.day_input(context.partition_key)
            halved = batch_backoff(context.instance, pipeline, context.partition_key, context.retry_number)
            prepared = prepare(step, pinned, run, halved)
            findings = feature_checks.findings(step, prepared, pinned)
            yield from report(pipeline, key, findings, run.id, context.partition_key)
            published_day, committed = step.publish(
                prepared,
                run,
                fingerprint=pinned.fingerprint,
                code=code,
                model=None,
                check_current=lambda: check_input(pipeline, pinned, may_be_archived=False),
            )
            metadata = features_metadata(step, prepared, published_day, committed) | figures(run, published_day.rows_in)
            metadata |= cost_figures(pipeline, published_day)
            yield dg.MaterializeResult(metadata=metadata, data_version=data_version(published_day))

    return _validated_features


def features_metadata(
    step: DayStep, prepared: Prepared, published_day: PublishedDay, committed: bool
) -> dict[str, dg.MetadataValue]:
    """Metadata of the day's features for an operator."""
    reasons = [
        {"stage": stage, "reason": reason, "rows": rows}
        for (stage, reason), rows in rejected_by_reason(published_day.shards)
    ]
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(published_day.rows),
        "dagster/size_bytes": dg.MetadataValue.int(published_day.table.bytes),
        "rows_in": dg.MetadataValue.int(published_day.rows_in),
        "rows": dg.MetadataValue.int(published_day.rows),
        "rows_quarantined": dg.MetadataValue.int(published_day.rows_quarantined),
        "files": dg.MetadataValue.int(len(published_day.table.files)),
        "shards_reused": dg.MetadataValue.int(prepared.reused),
        "committed": dg.MetadataValue.bool(committed),
        "table_version": dg.MetadataValue.int(published_day.table.version),
        "fingerprint": dg.MetadataValue.text(published_day.fingerprint),
        **({"quarantine": ui_table(reasons)} if reasons else {}),
        **preview(step, published_day),
    }


def _columns(pipeline: Pipeline) -> dg.TableSchema:
    spec, attributes = pipeline.spec, pipeline.spec.input.attributes
    features, kept = spec.features, spec.features.validated(schema_columns(spec, pipeline.folder) or ())
    numeric = [name for name in features.numeric if name in kept]
    categorical = [name for name in features.categorical if name in kept]
    named = {spec.input.key, *features.inputs, *attributes}
    return column_schema(
        [
            (spec.input.key, "key", "identifies the row; unique within a day"),
            *((name, "numeric", "feature; null if missing") for name in numeric),
            *((name, "categorical", "feature; null if missing") for name in categorical),
            *((name, "text", "feature; null if missing") for name in features.text),
            *((name, "column", "features.transform gets it") for name in kept if name not in named),
            *((name, "attribute", "for decisions and exports; the model does not see it") for name in attributes),
            ("source_file", "string", "landing file of the row"),
            ("row_number", "int64", "row in that file, from 1"),
            ("dt", "date", "the day"),
        ]
    )
