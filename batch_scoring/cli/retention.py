"""The subcommand `retention`: count what is no longer needed, or delete it."""

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TextIO

import click

from batch_scoring.cli.instance import opened
from batch_scoring.cli.parameters import Subcommand
from batch_scoring.config.loader import find_pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.assets.retention import active_limits, table_row
from batch_scoring.operations.retention import vacuum
from batch_scoring.operations.retention.plan import RetentionPlan
from batch_scoring.runtime.printable import guarded

SHOWN = 3
"""Most files of a kind that are listed."""


@click.command(cls=Subcommand)
@click.argument("pipeline", help="Name of the pipeline, for example flight_delay.")
@click.option("--delete", is_flag=True, help="Delete it; without this option nothing is changed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every file.")
@click.option(
    "--clock-is-right", is_flag=True, help="Delete although the clock is in doubt; compare it with another one first."
)
def retention(pipeline: str, *, delete: bool, as_json: bool, clock_is_right: bool) -> int:
    """Count what is no longer needed, or delete it.

    `retention` in the spec says after how many days. What the tables, a run or a reader may still need is never
    included.
    """
    out = guarded(sys.stdout)
    return clean(pipeline, out, delete=delete, as_json=as_json, clock_is_right=clock_is_right)


def clean(name: str, out: TextIO, *, delete: bool = False, as_json: bool = False, clock_is_right: bool = False) -> int:
    """Print what may be deleted, and delete it on request; 0, or 1 if something could not be determined or deleted.

    Args:
        name: of the pipeline.
        out: receives the result.
        delete: delete it.
        as_json: print JSON, with every file.
        clock_is_right: delete although the clock is in doubt.

    Raises:
        SpecError, UnknownPipelineError: no pipeline has that name.
        OSError: the store does not answer.
    """
    pipeline = find_pipeline(name)
    with opened() as instance:
        plan = vacuum.look(pipeline, active_limits(pipeline, instance))
    problems, shown = [*plan.problems, *plan.doubts], plan
    if delete:
        swept = vacuum.sweep(pipeline, plan, "batch-scoring retention", clock_is_right=clock_is_right)
        problems, shown = swept.problems, RetentionPlan(plan.now, plan.limits, tuple(swept.removed))
    if as_json:
        json.dump(_document(pipeline, shown, problems, deleted=delete), out, indent=1)
        out.write("\n")
    else:
        out.writelines(f"{line}\n" for line in _lines(pipeline, shown, problems, deleted=delete))
    return 1 if problems else 0


def _document(pipeline: Pipeline, plan: RetentionPlan, problems: list[str], *, deleted: bool) -> dict[str, Any]:
    return {
        "pipeline": pipeline.name,
        "now": plan.now.isoformat(),
        "deleted": deleted,
        "kinds": {kind: table_row(plan, kind) for kind in plan.totals},
        "problems": problems,
        "files": [{"kind": file.kind, "path": file.path, "bytes": file.size, "why": file.why} for file in plan.expired],
    }


def _lines(pipeline: Pipeline, plan: RetentionPlan, problems: list[str], *, deleted: bool) -> Iterator[str]:
    yield f"{pipeline.name} in {pipeline.output.uri}: {'removed' if deleted else 'can be removed'}"
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
    """A number of bytes in readable form."""
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 1000 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
