"""The command `batch-scoring`."""

import argparse
import sys
from datetime import date

from dagster import DagsterInvariantViolationError  # of a DAGSTER_HOME that is no folder

from batch_scoring import alerts, backfill
from batch_scoring.pipeline import SpecError, UnknownPipelineError


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; its exit code: 0 all went well, 1 something failed, 2 the command was wrong."""
    parser = argparse.ArgumentParser(prog="batch-scoring", description="Score days of a pipeline from a shell.")
    commands = parser.add_subparsers(dest="command", required=True)
    days = commands.add_parser(
        "backfill",
        help="score a range of days in this process, a Dagster run a day",
        description="Score a range of days in this process, a Dagster run a day. A day that fails does not stop the "
        "others; failed days are listed at the end and make the exit code 1.",
    )
    days.add_argument("pipeline", help="name of the pipeline, for example flight_delay")
    days.add_argument("first", type=_day, help="first day, YYYY-MM-DD")
    days.add_argument("last", type=_day, help="last day, YYYY-MM-DD, included")
    days.set_defaults(run=lambda options: backfill.backfill(options.pipeline, options.first, options.last, sys.stdout))
    channels = commands.add_parser(
        "test-alert",
        help="send a test message to every channel of ALERT_URLS",
        description="Send a test message to every channel of ALERT_URLS; the exit code is 1 if one has not taken it.",
    )
    channels.set_defaults(run=lambda _: alerts.try_channels(sys.stdout))
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (SpecError, UnknownPipelineError, backfill.BackfillError, DagsterInvariantViolationError) as error:
        sys.stderr.write(f"batch-scoring: {error}\n")
        return 2


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day; expected YYYY-MM-DD") from None
