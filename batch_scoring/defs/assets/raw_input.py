"""The asset raw_input: the day's landing files, found, verified readable and pinned.

No bytes are copied. The files and their versions go into `state/dt=…/input.json`; everything downstream reads that,
never a new listing.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.asset_checks import report, specs
from batch_scoring.defs.metadata import asset_key, asset_options, days, ui_table
from batch_scoring.defs.step_run import step_run
from batch_scoring.monitoring.checks.input_checks import CHECKS, Found, find, row_count
from batch_scoring.operations import run_history
from batch_scoring.storage.state import DayInput, State

FILES_SHOWN = 50


def raw_input(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""
    key = asset_key(pipeline, "raw_input")

    @dg.asset(
        key=key,
        description=f"{pipeline.spec.description}\n\nThe day's files in `{pipeline.landing.uri}`, pinned by version.",
        partitions_def=days(pipeline),
        check_specs=specs(pipeline, key, CHECKS, days(pipeline)),
        **asset_options(pipeline, "raw_input", kinds={"parquet"}),
    )
    def _raw_input(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        with step_run(context, pipeline) as run:
            found = find(pipeline, context.partition_key)
            run.tag(attempt_tags(pipeline, found, run.tags))
            findings = [*found.findings, row_count(pipeline, context.partition_key, found.rows)]
            yield from report(pipeline, key, findings, run.id, context.partition_key)
            pinned = pin(pipeline, context.partition_key, found, run.id, run.started)
            yield dg.MaterializeResult(
                metadata=input_metadata(pinned, found), data_version=dg.DataVersion(pinned.fingerprint)
            )

    return _raw_input


def attempt_tags(pipeline: Pipeline, found: Found, run_tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that tell the planner what a run attempted.

    A sensor's own tag for the code is kept: its run counts as an attempt with that code, whatever was deployed since.
    So is its tag for the files, if this process cannot see them all.
    """
    tags = {} if run_history.CODE in run_tags else {run_history.CODE: run_history.current_code(pipeline)}
    if not found.is_denied:
        tags[run_history.FINGERPRINT] = run_history.fingerprint_tag(found.fingerprint, is_complete=not found.waits_for)
    return tags


def pin(pipeline: Pipeline, day: str, found: Found, run_id: str, at: datetime) -> DayInput:
    """Record which versions of which files are the day's input."""
    pinned = DayInput(day=day, fingerprint=found.fingerprint, files=found.files, run_id=run_id, pinned_at=at)
    State(pipeline.output).put_day_input(pinned)
    return pinned


def input_metadata(pinned: DayInput, found: Found) -> dict[str, dg.MetadataValue]:
    """Figures of the input for an operator."""
    records = [
        {"file": file.path, "rows": file.rows, "bytes": file.size, "modified": file.modified.isoformat()}
        for file in sorted(pinned.files, key=lambda file: file.modified, reverse=True)[:FILES_SHOWN]
    ]
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(pinned.rows),
        "dagster/size_bytes": dg.MetadataValue.int(sum(file.size for file in pinned.files)),
        "dagster/uri": dg.MetadataValue.text(found.where),
        "rows": dg.MetadataValue.int(pinned.rows),
        "files": dg.MetadataValue.int(len(pinned.files)),
        "newest_files": ui_table(records),
        "fingerprint": dg.MetadataValue.text(pinned.fingerprint),
    }
