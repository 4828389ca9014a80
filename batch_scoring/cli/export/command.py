"""The subcommand `export`: its arguments and options."""

import sys
from collections.abc import Sequence
from datetime import date

import click

from batch_scoring.cli.parameters import DAY, Subcommand
from batch_scoring.runtime.printable import guarded


@click.command(cls=Subcommand)
@click.argument("pipeline", help="Name of the pipeline, for example flight_delay.")
@click.argument(
    "span",
    metavar="[NAME] FIRST LAST",
    nargs=-1,
    required=True,
    help="Name of an export in the spec, all if none is named; first and last day, YYYY-MM-DD, included.",
)
@click.option("--again", is_flag=True, help="Export days that are exported already, too; a newer version stays.")
@click.option("--dry-run", is_flag=True, help="Print what would be exported and why; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.pass_context
def export(
    context: click.Context, pipeline: str, span: Sequence[str], *, again: bool, dry_run: bool, as_json: bool
) -> int:
    """Export published days to the sinks of a pipeline, in this process, one Dagster run per export and day.

    Exported are days whose receipts are not of what is published. An export that fails does not stop the others; what
    failed is listed at the end and makes the exit code 1.
    """
    if len(span) not in (2, 3) or (len(span) == 2 and span[0][:1].isalpha()):
        context.fail(
            "expected [NAME] FIRST LAST after the pipeline: an export, the first and the last day; a single day is both"
        )
    name = span[0] if len(span) == 3 else None
    first, last = (_day(text, context) for text in span[-2:])
    from batch_scoring.cli.export import export_days  # late: it brings Dagster

    return export_days.export(
        pipeline, name, first, last, guarded(sys.stdout), again=again, dry_run=dry_run, as_json=as_json
    )


def _day(text: str, context: click.Context) -> date:
    return DAY.convert(text, None, context)
