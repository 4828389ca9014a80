"""The asset model: the active model version.

The bundle that the spec names is read once, verified, proven by its golden rows, copied to `state/models/<sha256>/`
and named in `state/model.json`. Everything downstream scores with that copy, so a bundle folder that is overwritten
during a run changes nothing. The daily job resolves the model first; nothing happens when it is unchanged.
"""

from collections.abc import Iterator

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.asset_checks import report, specs
from batch_scoring.defs.metadata import asset_key, asset_options, ui_table
from batch_scoring.defs.step_run import step_run
from batch_scoring.inference.bundle import Bundle
from batch_scoring.inference.registry import activate
from batch_scoring.monitoring.checks import model_checks
from batch_scoring.storage.state import ActiveModel


def model(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""
    key = asset_key(pipeline, "model")

    @dg.asset(
        key=key,
        description=f"{__doc__}\n\nDelivered in `{pipeline.bundle.uri}`.",
        # no days, as the asset has none: `dagster definitions validate` refuses checks that have them. The price is a
        # planned row a day in Dagster's own table, beside the result (pinned in test_dagster_behaviour.py)
        check_specs=specs(pipeline, key, model_checks.CHECKS),
        **asset_options(pipeline, "model", kinds={"pytorch"}),
    )
    def _model(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        with step_run(context, pipeline) as run:
            delivered = model_checks.examine(pipeline)
            own_day = {context.partition_key} if context.has_partition_key else set()
            metrics = model_checks.metrics(pipeline, delivered)
            currency = model_checks.currency(pipeline, delivered, own_day)
            yield from report(pipeline, key, [*delivered.findings, metrics, currency], run.id)
            assert delivered.bundle is not None, "report has failed the step"
            active = activate(pipeline, delivered.bundle, run)
            metadata = model_metadata(delivered.bundle, active)
            yield dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(active.sha256))

    return _model


def model_metadata(bundle: Bundle, active: ActiveModel) -> dict[str, dg.MetadataValue]:
    """Figures of the model for an operator."""
    manifest = bundle.manifest
    metrics = [{"metric": name, "value": value} for name, value in manifest.metrics.items()]
    return {
        "version": dg.MetadataValue.text(manifest.version),
        "sha256": dg.MetadataValue.text(bundle.sha256),
        "in_force_since": dg.MetadataValue.timestamp(active.resolved_at),
        "source": dg.MetadataValue.text(bundle.uri),
        "dagster/size_bytes": dg.MetadataValue.int(sum(map(len, bundle.content.values()))),
        "features": dg.MetadataValue.int(len(manifest.numeric) + len(manifest.categorical)),
        "training": dg.MetadataValue.json(manifest.training),
        **({"metrics": ui_table(metrics)} if metrics else {}),
    }
