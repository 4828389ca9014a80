"""What the pipelines' assets have in common: keys, days, options, the run they are in, their figures."""

import math
import resource
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import DayStep
from batch_scoring.defs.execution import executors
from batch_scoring.runtime.printable import one_line, printable
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage import shards
from batch_scoring.storage.state import Account

SCORED_FROM = ("raw_input", "validated_features", "model")
"""What predictions depend on. raw_input too: what it pinned is compared with the features, and
`--select "+<pipeline>/predictions"` is parsed as one layer of ancestors for a key with a slash."""


def asset_key(pipeline: Pipeline, name: str) -> dg.AssetKey:
    """`<pipeline>/<name>`."""
    return dg.AssetKey([pipeline.name, name])


def days(pipeline: Pipeline) -> dg.DailyPartitionsDefinition:
    """The pipeline's days, today included: its files may land before the day is over."""
    partitions = pipeline.spec.partitions
    return dg.DailyPartitionsDefinition(partitions.start.isoformat(), timezone=partitions.timezone, end_offset=1)


def asset_options(pipeline: Pipeline, name: str, kinds: set[str]) -> dict[str, Any]:
    """Arguments that every asset of a pipeline has, those of its step's process or pod included."""
    return catalog_options(pipeline, kinds) | executors.step_options(pipeline, name)


def catalog_options(pipeline: Pipeline, kinds: set[str]) -> dict[str, Any]:
    """What the UI's catalog shows beside an asset."""
    return {"group_name": pipeline.name, "owners": list(pipeline.spec.owners) or None, "kinds": kinds}


def run_of(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> StepContext:
    """The run that a step is in; its start is one value for all that the step writes."""
    record = context.instance.get_run_record_by_id(context.run.run_id)
    began = record.start_time if record and record.start_time else None
    started = datetime.fromtimestamp(began, UTC) if began else datetime.now(UTC)
    run = context.run
    return StepContext(
        run.run_id,
        started,
        lambda line: context.log.info(printable(line)),
        tags=run.tags,
        tag=lambda tags: context.instance.add_run_tags(run.run_id, tags),
    )


def column_schema(columns: Iterable[tuple[str, str, str]]) -> dg.TableSchema:
    """The schema that the UI shows for an asset: name, type and meaning of each column."""
    return dg.TableSchema([dg.TableColumn(name, kind, description) for name, kind, description in columns])


def figures(run: StepContext, rows: int) -> dict[str, dg.MetadataValue]:
    """Time and memory of a step."""
    wall = run.elapsed
    seconds = {f"seconds_{activity}": dg.MetadataValue.float(round(s, 4)) for activity, s in run.seconds.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        **seconds,
        "seconds": dg.MetadataValue.float(round(wall, 4)),
        "rows_per_second": dg.MetadataValue.int(round(rows / wall) if wall > 0 else 0),
        "peak_memory_bytes": dg.MetadataValue.int(peak),
    }


def data_version(account: Account) -> dg.DataVersion:
    """Names the day's rows: a digest over its shards' digests."""
    return dg.DataVersion(shards.digest(*sorted(shard.digest for shard in account.shards)))


def ui_table(rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """A table for the UI; texts of files in it are shown for what they are."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord({name: one_line(cell) if isinstance(cell, str) else cell for name, cell in row.items()})
            for row in rows
        ]
    )


def preview(step: DayStep, account: Account) -> dict[str, Any]:
    """A few rows of the day, for a person; none unless the spec asks for them: they stay in Dagster's database."""
    count = step.pipeline.spec.preview_rows
    for path in account.table.files if count else ():
        for batch in shards.read(step.table.table.folder, path, batch_rows=count):
            if batch.num_rows:
                rows = batch.slice(0, count).to_pylist()
                return {"preview": ui_table({name: _cell(value) for name, value in row.items()} for row in rows)}
    return {}


def _cell(value: object) -> str | int | float | bool | None:
    if isinstance(value, float) and math.isfinite(value):
        return round(value, 4)
    if isinstance(value, int) and abs(value) < 2**53:  # beyond, a browser would show another number
        return value
    return None if value is None else str(value)[:60]
