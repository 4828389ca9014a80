"""The subcommand `backfill`: its arguments and options."""

import sys
from datetime import date

import click

from batch_scoring.cli.parameters import DAY, Subcommand
from batch_scoring.runtime.printable import guarded


@click.command(cls=Subcommand)
@click.argument("pipeline", help="Name of the pipeline, for example flight_delay.")
@click.argument("first", type=DAY, required=False, help="First day, YYYY-MM-DD.")
@click.argument("last", type=DAY, required=False, help="Last day, YYYY-MM-DD, included.")
@click.option("--stale", is_flag=True, help="Only days that the check days_are_current lists.")
@click.option(
    "--failed",
    is_flag=True,
    help="Only days that have landed and failed, and were not scored since; with --stale these too.",
)
@click.option("--dry-run", is_flag=True, help="Print which days would be run and why; write nothing.")
@click.pass_context
def backfill(
    context: click.Context,
    pipeline: str,
    first: date | None,
    last: date | None,
    *,
    stale: bool,
    failed: bool,
    dry_run: bool,
) -> int:
    """Score days in this process, one Dagster run per day.

    The days are those from FIRST to LAST, or those that are stale or have failed; with --stale or --failed FIRST and
    LAST are optional. A day that fails does not stop the others; failed days are listed at the end and make the exit
    code 1. A day that another process is working on comes last.
    """
    missing = [name for name, day in (("first", first), ("last", last)) if day is None]
    if missing and not (stale or failed):
        one_day = f"; for one day: batch-scoring backfill {pipeline} {first} {first}" if first else ""
        context.fail(f"the following arguments are required: {', '.join(missing)} (or --stale, --failed){one_day}")
    from batch_scoring.cli.backfill import run_days  # late: it brings Dagster

    return run_days.backfill(pipeline, first, last, guarded(sys.stdout), stale=stale, failed=failed, dry_run=dry_run)
