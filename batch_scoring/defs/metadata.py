"""Shared parts of the assets: keys, partitions, options, metadata."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import dagster as dg

from batch_scoring.config.names import asset_path
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import DayStep
from batch_scoring.defs.execution import step_pods
from batch_scoring.monitoring.cost import GB, step_cost
from batch_scoring.runtime.printable import one_line
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.runtime.usage import peak_memory
from batch_scoring.storage import shards
from batch_scoring.storage.state import PublishedDay

SCORED_FROM = ("raw_input", "validated_features", "model")
"""Upstream assets of predictions. raw_input is one of them because the files that it pinned are compared with those
of the features, and because Dagster parses `--select "+<pipeline>/predictions"` as one layer of ancestors only."""


class CatalogOptions(TypedDict):
    """Arguments of an asset that the UI's catalog shows."""

    group_name: str
    owners: list[str] | None
    kinds: set[str]


class AssetOptions(CatalogOptions, step_pods.StepOptions):
    """Arguments that every asset of a pipeline has, those of its step included."""


def asset_key(pipeline: Pipeline, name: str) -> dg.AssetKey:
    """Key of an asset: `<pipeline>/<name>`."""
    return dg.AssetKey(asset_path(pipeline, name))


def days(pipeline: Pipeline) -> dg.DailyPartitionsDefinition:
    """The pipeline's daily partitions, today included: files may land before the day is over."""
    partitions = pipeline.spec.partitions
    return dg.DailyPartitionsDefinition(partitions.start.isoformat(), timezone=partitions.timezone, end_offset=1)


def asset_options(pipeline: Pipeline, name: str, kinds: set[str]) -> AssetOptions:
    """Arguments that every asset of a pipeline has."""
    return {**catalog_options(pipeline, kinds), **step_pods.step_options(pipeline, name)}


def catalog_options(pipeline: Pipeline, kinds: set[str]) -> CatalogOptions:
    """Arguments of an asset that the UI's catalog shows."""
    return {"group_name": pipeline.name, "owners": list(pipeline.spec.owners) or None, "kinds": kinds}


def column_schema(columns: Iterable[tuple[str, str, str]]) -> dg.TableSchema:
    """Column schema of an asset, from name, type and description of each column."""
    return dg.TableSchema([dg.TableColumn(name, kind, description) for name, kind, description in columns])


def figures(run: StepContext, rows: int) -> dict[str, dg.MetadataValue]:
    """Duration, throughput and peak memory of a step."""
    wall = run.elapsed
    seconds = {f"seconds_{activity}": dg.MetadataValue.float(round(s, 4)) for activity, s in run.seconds.items()}
    return {
        **seconds,
        "seconds": dg.MetadataValue.float(round(wall, 4)),
        "rows_per_second": dg.MetadataValue.int(round(rows / wall) if wall > 0 else 0),
        "peak_memory_bytes": dg.MetadataValue.int(peak_memory()),
    }


def cost_figures(pipeline: Pipeline, published_day: PublishedDay) -> dict[str, dg.MetadataValue]:
    """What the day took, its overhead included; nothing if it was published by a version that did not measure it."""
    found = step_cost(published_day, pipeline.spec.prices)
    if found is None:
        return {}
    usage, overhead = found.usage, found.overhead
    numbers = {
        "cpu_seconds": usage.cpu_seconds,
        "gpu_seconds": usage.gpu_seconds,
        "memory_gb_seconds": usage.memory_byte_seconds / GB,
        "overhead_cpu_seconds": overhead.cpu_seconds,
    }
    shown: dict[str, dg.MetadataValue] = {
        name: dg.MetadataValue.float(round(number, 4)) for name, number in numbers.items()
    }
    if (prices := pipeline.spec.prices) and found.cost is not None:
        shown |= {"cost": dg.MetadataValue.float(found.cost), "currency": dg.MetadataValue.text(prices.currency)}
    return shown


def data_version(published_day: PublishedDay) -> dg.DataVersion:
    """Data version of a published day: a digest of its shards' digests."""
    return dg.DataVersion(shards.digest(*sorted(shard.digest for shard in published_day.shards)))


def ui_table(rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """A table for the UI; control characters in texts from files are escaped."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord({name: one_line(cell) if isinstance(cell, str) else cell for name, cell in row.items()})
            for row in rows
        ]
    )


def preview(step: DayStep, published_day: PublishedDay) -> dict[str, Any]:
    """The first rows of the day as metadata, without attributes; none unless the spec asks for them.

    They stay in Dagster's database for ever, and attributes tend to be personal data.
    """
    count = step.pipeline.spec.preview_rows
    for path in published_day.table.files if count else ():
        for batch in shards.read(step.table.table.folder, path, batch_rows=count):
            if batch.num_rows:
                attributes = [name for name in step.pipeline.spec.input.attributes if name in batch.schema.names]
                rows = batch.slice(0, count).drop_columns(attributes).to_pylist()
                return {"preview": ui_table({name: _cell(value) for name, value in row.items()} for row in rows)}
    return {}


def _cell(value: object) -> str | int | float | bool | None:
    if isinstance(value, float) and math.isfinite(value):
        return round(value, 4)
    if isinstance(value, int) and abs(value) < 2**53:  # beyond, a browser would round it
        return value
    return None if value is None else str(value)[:60]
