"""The asset retention: files that are no longer needed are counted, and deleted on request.

`retention:` in the spec says after how many days: files of the tables that were replaced or never published, drift
pages, samples, rows of the quarantine, features and decisions, weights of former models. A run from the UI only counts,
unless `dry_run: false` is in its config; the schedule's runs delete. What the tables, a run or a reader may still need
is never included.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.metadata import asset_key, asset_options
from batch_scoring.defs.step_run import step_run
from batch_scoring.operations.retention import vacuum
from batch_scoring.operations.retention.plan import (
    DEFAULT_MAX_RUNTIME,
    MEANING,
    OLD_ROWS,
    Expired,
    Kind,
    Limits,
    RetentionPlan,
    limits_of,
)


class Retain(dg.Config):
    """Run config of the asset."""

    dry_run: bool = Field(default=True, description="only count what may be deleted")
    clock_is_right: bool = Field(
        default=False, description="delete although the clock is in doubt; compare it with another one first"
    )


def retention(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""

    @dg.asset(
        key=asset_key(pipeline, "retention"),
        description=__doc__,
        **asset_options(pipeline, "retention", kinds={"deltalake"}),
    )
    def _retention(context: dg.AssetExecutionContext, config: Retain) -> dg.MaterializeResult[Any]:
        with step_run(context, pipeline) as run:
            plan = vacuum.look(pipeline, active_limits(pipeline, context.instance))
            if config.dry_run:
                problems, removed = [*plan.problems, *plan.doubts], []
            else:
                swept = vacuum.sweep(pipeline, plan, run.id, run.log, clock_is_right=config.clock_is_right)
                problems, removed = swept.problems, swept.removed
            metadata = retention_metadata(plan, removed, dry_run=config.dry_run)
            if problems:
                raise dg.Failure("; ".join(problems), metadata=metadata, allow_retries=False)
            return dg.MaterializeResult(metadata=metadata)

    return _retention


def active_limits(pipeline: Pipeline, instance: dg.DagsterInstance) -> Limits:
    """Retention ages from the spec, and maximum runtimes: the job's from the spec, others' from the instance."""
    seconds = instance.run_monitoring_max_runtime_seconds
    of_instance = timedelta(seconds=seconds) if seconds else DEFAULT_MAX_RUNTIME
    return limits_of(pipeline.spec.retention, max(of_instance, timedelta(hours=pipeline.spec.runs.max_hours)))


def retention_metadata(
    plan: RetentionPlan, removed: Iterable[Expired], *, dry_run: bool
) -> dict[str, dg.MetadataValue]:
    """Metadata of a pass for an operator: counts and bytes of every kind."""
    shown = plan if dry_run else RetentionPlan(plan.now, plan.limits, tuple(removed))
    rows = [dg.TableRecord(table_row(shown, kind)) for kind in shown.totals]
    figures = {
        f"{kind}_{name}": dg.MetadataValue.int(value)
        for kind, total in shown.totals.items()
        for name, value in (("files", total.files), ("bytes", total.bytes))
    }
    return {
        "dry_run": dg.MetadataValue.bool(dry_run),
        "would_go" if dry_run else "gone": dg.MetadataValue.table(rows),
        # rows that are taken out of a table are deleted later, as superseded
        "bytes": dg.MetadataValue.int(sum(file.size for file in shown.expired if file.kind not in OLD_ROWS.values())),
        **figures,
    }


def table_row(plan: RetentionPlan, kind: Kind) -> dict[str, Any]:
    """The figures of one kind, under the names that the UI and the command's JSON share."""
    total, age = plan.totals[kind], plan.limits.of(kind)
    return {
        "kind": kind,
        "after_days": age / timedelta(days=1) if age else None,
        "files": total.files,
        "bytes": total.bytes,
        "rows": total.rows,
        "what": MEANING[kind],
    }
