"""The subcommand `cost`: what the days of a month took, by step, as the state has recorded it."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from batch_scoring.cli.parameters import MONTH, Subcommand
from batch_scoring.runtime.printable import guarded

if TYPE_CHECKING:
    from batch_scoring.config.pipeline import Pipeline
    from batch_scoring.monitoring.cost import MonthCost, StepCost
    from batch_scoring.runtime.usage import Usage

NOT_RECORDED = "not recorded"
"""What stands for the figures of a step that was published by a version that did not measure it."""


@click.command(cls=Subcommand)
@click.argument("pipeline", required=False, help="Name of a pipeline, such as flight_delay; all if none is named.")
@click.argument("month", required=False, type=MONTH, help="YYYY-MM; that of the newest day with documents if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def cost(pipeline: str | None, month: str | None, *, as_json: bool) -> int:
    """Show what the days of a month took: CPU, GPU and memory seconds, and money if the spec has prices.

    Overhead is what belongs to no shard of rows: loading the model, planning, checks, the commit. On Kubernetes a step
    costs what its pod reserves, elsewhere what it uses.
    """
    return show(pipeline, month, guarded(sys.stdout), as_json=as_json)


def show(name: str | None, month: str | None, out: TextIO, *, as_json: bool = False) -> int:
    """Print what the days of a month took; 0, or 1 if a document of the state is damaged.

    Args:
        name: of the pipeline; all if None.
        month: YYYY-MM; each pipeline's newest if None.
        out: receives the result.
        as_json: print JSON.

    Raises:
        SpecError, UnknownPipelineError: no pipeline has that name.
    """
    from batch_scoring.config.loader import find_pipeline, survey_pipelines  # late: --help does not need them

    pipelines = [find_pipeline(name)] if name else survey_pipelines().deployable()
    found = [_found(one, month) for one in pipelines]
    if as_json:
        json.dump({"pipelines": [_document(*one) for one in found]}, out, indent=1)
        out.write("\n")
    else:
        blocks = ("\n".join(_lines(*one)) for one in found)
        out.write("\n\n".join(blocks) + "\n")
    return 1 if any(costs.damage for *_, costs in found) else 0


def _found(pipeline: "Pipeline", month: str | None) -> tuple["Pipeline", str | None, "MonthCost"]:
    """A pipeline, its month, and what that took; a state that cannot be read is named, and hides no other's."""
    from batch_scoring.monitoring.cost import MonthCost
    from batch_scoring.storage.state import State

    try:
        State(pipeline.output).ensure_readable()
        month = month or _newest(pipeline)
        return pipeline, month, _read(pipeline, month)
    except OSError as error:
        return pipeline, month, MonthCost({}, None, (f"the state cannot be read: {error}",))


def _newest(pipeline: "Pipeline") -> str | None:
    """The month of the newest day in the state; None if there is none."""
    from batch_scoring.storage.state import State

    days = State(pipeline.output).newest_days()
    return days[0][:7] if days else None


def _read(pipeline: "Pipeline", month: str | None) -> "MonthCost":
    from batch_scoring.config.days import of_month
    from batch_scoring.monitoring.cost import read_costs

    return read_costs(pipeline, [str(day) for day in of_month(month)] if month else [])


def _document(pipeline: "Pipeline", month: str | None, costs: "MonthCost") -> dict[str, Any]:
    return {
        "pipeline": pipeline.name,
        "month": month,
        "currency": costs.currency,
        "steps": [
            {"day": day, "step": step, "recorded": cost is not None, **(_figures(cost) if cost else {})}
            for (day, step), cost in costs.costs.items()
        ],
        "total": _figures(costs.total) if costs.total else None,
        "damaged": list(costs.damage),
    }


def _figures(cost: "StepCost") -> dict[str, Any]:
    return {
        "rows": cost.rows,
        **_seconds(cost.usage),
        "overhead": {**_seconds(cost.overhead), "cost": cost.overhead_cost},
        "cost": cost.cost,
        "cost_per_million_rows": cost.per_million_rows,
    }


def _seconds(usage: "Usage") -> dict[str, float]:
    from batch_scoring.monitoring.cost import GB

    return {
        "wall_seconds": usage.wall_seconds,
        "cpu_seconds": usage.cpu_seconds,
        "gpu_seconds": usage.gpu_seconds,
        "memory_gb_seconds": round(usage.memory_byte_seconds / GB, 4),
        "reserved_cpu_seconds": usage.reserved_cpu_seconds,
        "reserved_gpu_seconds": usage.reserved_gpu_seconds,
        "reserved_memory_gb_seconds": round(usage.reserved_memory_byte_seconds / GB, 4),
    }


def _lines(pipeline: "Pipeline", month: str | None, costs: "MonthCost") -> Iterator[str]:
    from batch_scoring.monitoring.cost import statements

    if not costs.costs:
        found = "unknown" if costs.damage else "nothing was published"
        yield f"{pipeline.name}: {found}{f' in {month}' if month else ''}"
    else:
        first, *others = statements(costs)
        yield f"{pipeline.name} {month}: {first}"
        yield from others
        yield ""
        yield from _table(costs)
        if costs.currency is None:
            yield "no prices in the spec: add the section prices to see money"
    yield from (f"damaged: {text}" for text in costs.damage)


def _table(costs: "MonthCost") -> Iterator[str]:
    money = ["overhead", "cost", "per M rows"] if costs.currency else []
    rows = [["day", "step", "rows", "CPU s", "GPU s", "GB s", "overhead CPU s", *money]]
    rows += [
        [day, step, *(_cells(cost, priced=bool(costs.currency)) if cost else [NOT_RECORDED])]
        for (day, step), cost in costs.costs.items()
    ]
    if costs.total:
        rows.append(["total", "", *_cells(costs.total, priced=bool(costs.currency))])
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(len(rows[0]))]
    yield from (_aligned(row, widths) for row in rows)


def _cells(cost: "StepCost", *, priced: bool) -> Iterable[str]:
    from batch_scoring.monitoring.cost import GB, money

    usage = cost.usage
    yield f"{cost.rows:,}"
    yield from (f"{value:,.2f}" for value in (usage.cpu_seconds, usage.gpu_seconds, usage.memory_byte_seconds / GB))
    yield f"{cost.overhead.cpu_seconds:,.2f}"
    if priced:
        amounts = (cost.overhead_cost, cost.cost, cost.per_million_rows)
        yield from ("" if amount is None else money(amount) for amount in amounts)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """A line of the table: day and step to the left, numbers to the right."""
    cells = [
        cell.ljust(width) if n < 2 else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(row, widths, strict=False))
    ]
    return "  ".join(cells).rstrip()
