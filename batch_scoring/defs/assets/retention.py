"""The asset retention: what nobody needs any more is counted, and taken away when asked to.

`retention:` in the spec says after how many days: files of the tables that were replaced or never published, drift
pages, samples, quarantined rows, weights of former models. A run from the UI only counts, unless `dry_run: false` is in
its config; the schedule's runs delete. What the tables, a run or a reader may still need is never among it.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, TextIO

import dagster as dg
from pydantic import Field

from batch_scoring.cli.instance import opened
from batch_scoring.config.loader import find_pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.metadata import asset_key, asset_options
from batch_scoring.defs.step_run import step_run
from batch_scoring.operations.retention import vacuum
from batch_scoring.operations.retention.plan import LONGEST_RUN, MEANING, Expired, Kind, Limits, Plan, limits_of

SHOWN = 3
"""Files of a kind that are named."""


class Retain(dg.Config):
    """What a run of the asset is asked for."""

    dry_run: bool = Field(default=True, description="only count what may go")
    clock_is_right: bool = Field(default=False, description="delete although the clock is doubted; compare it first")


def retention(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""

    @dg.asset(
        key=asset_key(pipeline, "retention"),
        description=__doc__,
        **asset_options(pipeline, "retention", kinds={"deltalake"}),
    )
    def _retention(context: dg.AssetExecutionContext, config: Retain) -> dg.MaterializeResult[Any]:
        with step_run(context) as run:
            plan = vacuum.look(pipeline, limits_in_force(pipeline, context.instance))
            if config.dry_run:
                problems, removed = [*plan.problems, *plan.doubts], []
            else:
                swept = vacuum.sweep(pipeline, plan, run.id, run.log, clock_is_right=config.clock_is_right)
                problems, removed = swept.problems, swept.removed
            metadata = describe(plan, removed, dry_run=config.dry_run)
            if problems:
                raise dg.Failure("; ".join(problems), metadata=metadata, allow_retries=False)
            return dg.MaterializeResult(metadata=metadata)

    return _retention


def limits_in_force(pipeline: Pipeline, instance: dg.DagsterInstance) -> Limits:
    """The ages of the spec, and how long a run may last: one of the job by the spec, another by the instance."""
    seconds = instance.run_monitoring_max_runtime_seconds
    of_instance = timedelta(seconds=seconds) if seconds else LONGEST_RUN
    return limits_of(pipeline.spec.retention, max(of_instance, timedelta(hours=pipeline.spec.runs.max_hours)))


def describe(plan: Plan, removed: Iterable[Expired], *, dry_run: bool) -> dict[str, dg.MetadataValue]:
    """What an operator asks of a pass: counts and bytes of every kind."""
    shown = plan if dry_run else Plan(plan.now, plan.limits, tuple(removed))
    rows = [dg.TableRecord(_row(shown, kind)) for kind in shown.totals]
    figures = {
        f"{kind}_{name}": dg.MetadataValue.int(value)
        for kind, total in shown.totals.items()
        for name, value in (("files", total.files), ("bytes", total.bytes))
    }
    return {
        "dry_run": dg.MetadataValue.bool(dry_run),
        "would_go" if dry_run else "gone": dg.MetadataValue.table(rows),
        # what is taken out of the quarantine is deleted later, as superseded
        "bytes": dg.MetadataValue.int(sum(file.size for file in shown.expired if file.kind != "quarantine")),
        **figures,
    }


def clean(name: str, out: TextIO, *, delete: bool = False, as_json: bool = False, clock_is_right: bool = False) -> int:
    """Say what may go, and take it away if asked to; 0, or 1 if something could not be told or done.

    Args:
        name: of the pipeline.
        out: is told.
        delete: take it away.
        as_json: tell in JSON, with every file.
        clock_is_right: delete although the clock is doubted.

    Raises:
        SpecError, UnknownPipelineError: there is no such pipeline.
        OSError: the store does not answer.
    """
    pipeline = find_pipeline(name)
    with opened() as instance:
        plan = vacuum.look(pipeline, limits_in_force(pipeline, instance))
    problems, shown = [*plan.problems, *plan.doubts], plan
    if delete:
        swept = vacuum.sweep(pipeline, plan, "batch-scoring retention", clock_is_right=clock_is_right)
        problems, shown = swept.problems, Plan(plan.now, plan.limits, tuple(swept.removed))
    if as_json:
        json.dump(_document(pipeline, shown, problems, deleted=delete), out, indent=1)
        out.write("\n")
    else:
        out.writelines(f"{line}\n" for line in _lines(pipeline, shown, problems, deleted=delete))
    return 1 if problems else 0


def _document(pipeline: Pipeline, plan: Plan, problems: list[str], *, deleted: bool) -> dict[str, Any]:
    return {
        "pipeline": pipeline.name,
        "now": plan.now.isoformat(),
        "deleted": deleted,
        "kinds": {kind: _row(plan, kind) for kind in plan.totals},
        "problems": problems,
        "files": [{"kind": file.kind, "path": file.path, "bytes": file.size, "why": file.why} for file in plan.expired],
    }


def _row(plan: Plan, kind: Kind) -> dict[str, Any]:
    total, age = plan.totals[kind], plan.limits.of(kind)
    return {
        "kind": kind,
        "after_days": age / timedelta(days=1) if age else None,
        "files": total.files,
        "bytes": total.bytes,
        "rows": total.rows,
        "what": MEANING[kind],
    }


def _lines(pipeline: Pipeline, plan: Plan, problems: list[str], *, deleted: bool) -> Iterator[str]:
    yield f"{pipeline.name} in {pipeline.output.uri}: {'removed' if deleted else 'may go'}"
    yield ""
    yield f"{'kind':<11}  {'kept for':>9}  {'files':>8}  {'size':>9}"
    for kind, total in plan.totals.items():
        age = plan.limits.of(kind)
        kept = f"{age / timedelta(days=1):g} days" if age else "ever"
        rows = f", {total.rows:,} rows" if total.rows else ""
        places = ", ".join(f"{place} {count:,}" for place, count in total.places.items())
        yield f"{kind:<11}  {kept:>9}  {total.files:>8,}  {size(total.bytes):>9}  {places}{rows}".rstrip()
    for kind in plan.totals:
        files = plan.of(kind)
        yield from (f"  {file.path}  {size(file.size)}, {file.why}" for file in files[:SHOWN])
        if len(files) > SHOWN:
            yield f"  … and {len(files) - SHOWN:,} more {kind} files"
    yield from (f"problem: {problem}" for problem in problems)
    if plan.expired and not deleted:
        yield f"nothing was removed; to do so: batch-scoring retention {pipeline.name} --delete"


def size(count: int) -> str:
    """Bytes for a person."""
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 1000 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
