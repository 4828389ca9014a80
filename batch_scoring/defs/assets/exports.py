"""An asset for each export: a published day in a sink, each version exactly once.

What is published of the day is compared with the receipt of the last export: equal, nothing is done. Otherwise the
sink writes the rows unseen and shows them in one atomic step, unless it shows a newer version already. The sensor
starts an export for every day that is behind; a sink that is down affects neither scores nor other exports.
"""

from collections.abc import Iterator

import dagster as dg
import yaml
from pydantic import Field

from batch_scoring.config.delivery_spec import Export, FileExport, PostgresExport
from batch_scoring.config.names import export_asset
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.asset_checks import report, specs
from batch_scoring.defs.metadata import asset_key, asset_options, days, figures
from batch_scoring.defs.step_run import step_run
from batch_scoring.delivery.exports.export import export_day
from batch_scoring.delivery.exports.findings import CHECKS, current, not_whole, whole
from batch_scoring.errors import RowsLostError
from batch_scoring.storage.shards import digest
from batch_scoring.storage.state import ExportReceipt


class ExportAgain(dg.Config):
    """Run config of the asset."""

    again: bool = Field(
        default=False, description="export the day although its receipt says that it is exported, and in its place"
    )


def exports(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """The assets of a pipeline, one for each export of its spec."""
    return [_asset(pipeline, name, export) for name, export in pipeline.spec.exports.items()]


def _asset(pipeline: Pipeline, name: str, export: Export) -> dg.AssetsDefinition:
    key = asset_key(pipeline, export_asset(name))

    @dg.asset(
        key=key,
        description=f"{__doc__}\n\n{_in_words(export)}",
        deps=[asset_key(pipeline, export.of)],
        partitions_def=days(pipeline),
        check_specs=specs(pipeline, key, CHECKS, days(pipeline)),
        **asset_options(pipeline, "exports", kinds={_kind(export)}),
    )
    def _export(
        context: dg.AssetExecutionContext, config: ExportAgain
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        with step_run(context, pipeline) as run:
            day = context.partition_key
            try:
                receipt = export_day(pipeline, name, day, run, again=config.again)
            except RowsLostError as error:
                yield from report(pipeline, key, [not_whole(error), current(pipeline, name, day)], run.id, day)
                raise
            yield from report(pipeline, key, [whole(receipt), current(pipeline, name, day)], run.id, day)
            yield dg.MaterializeResult(
                metadata=export_metadata(receipt) | figures(run, receipt.sent or 0),
                data_version=dg.DataVersion(digest(receipt.created, receipt.transaction, *receipt.files)),
            )

    return _export


def export_metadata(receipt: ExportReceipt) -> dict[str, dg.MetadataValue]:
    """Metadata of an export for an operator."""
    where = {"dagster/uri": dg.MetadataValue.text(receipt.where[0])} if receipt.where else {}
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(receipt.rows),
        **where,
        "outcome": dg.MetadataValue.text(receipt.outcome),
        "rows": dg.MetadataValue.int(receipt.rows),
        "rows_sent": dg.MetadataValue.int(receipt.sent or 0),
        "bytes": dg.MetadataValue.int(receipt.bytes),
        "where": dg.MetadataValue.text("\n".join(receipt.where)),
        "transaction": dg.MetadataValue.int(receipt.transaction),
        "exported_by": dg.MetadataValue.text(receipt.run_id),
    }


def _kind(export: Export) -> str:
    """What the catalog shows beside the asset."""
    if isinstance(export, FileExport):
        form = export.path.removesuffix(".gz").rpartition(".")[2]
        return "json" if form == "jsonl" else form
    return "postgres" if isinstance(export, PostgresExport) else "redis"


def _in_words(export: Export) -> str:
    """What the export sends, as its section of the spec says."""
    settings = export.model_dump(mode="json", exclude_defaults=True)
    section = yaml.safe_dump(settings, default_flow_style=None, sort_keys=False, allow_unicode=True, width=1000)
    return f"Its section of the spec:\n\n```yaml\n{section}```"
