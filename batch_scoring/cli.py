"""The command `batch-scoring`."""

import argparse
import functools
import os
import sys
from datetime import date
from typing import Any

from dagster import DagsterInvariantViolationError  # of a DAGSTER_HOME that is no folder

from batch_scoring import adhoc, alerts, backfill
from batch_scoring.aws import StoreError
from batch_scoring.bundle import BundleError
from batch_scoring.pipeline import SpecError, UnknownPipelineError, find_pipeline
from batch_scoring.selection import RangeError
from batch_scoring.state import StateError


class _Subcommand(argparse.ArgumentParser):
    """Takes options before, between and after days; argparse alone forgets days that come after an option."""

    _splits = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401  (argparse's overloads)
        """See `argparse.ArgumentParser`, which calls this again for the options and for the rest."""
        if self._splits:
            return super().parse_known_args(args, namespace)
        self._splits = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._splits = False


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; its exit code: 0 all went well, 1 something failed, 2 the command was wrong."""
    parser = argparse.ArgumentParser(prog="batch-scoring", description="Score days of a pipeline from a shell.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Subcommand)
    _add_backfill(commands)
    _add_score(commands)
    channels = commands.add_parser(
        "test-alert",
        help="send a test message to every channel of ALERT_URLS",
        description="Send a test message to every channel of ALERT_URLS; the exit code is 1 if one has not taken it.",
    )
    channels.set_defaults(run=lambda _: alerts.try_channels(sys.stdout))
    options = parser.parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except (SpecError, UnknownPipelineError, RangeError, DagsterInvariantViolationError) as error:
        sys.stderr.write(f"batch-scoring: {error}\n")
        return 2
    except (BundleError, StateError, StoreError, PermissionError) as error:
        sys.stderr.write(f"batch-scoring: {error}\n")
        return 1
    except BrokenPipeError:  # of `… | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python says at its exit what it could not
        return 1
    return code


def _add_backfill(commands: "argparse._SubParsersAction[_Subcommand]") -> None:
    days = commands.add_parser(
        "backfill",
        help="score days in this process, a Dagster run a day: a range, the stale ones, those that failed",
        description="Score days in this process, a Dagster run a day: a range, or those that are stale or have failed. "
        "A day that fails does not stop the others; failed days are listed at the end and make the exit code 1. A day "
        "that somebody else works on comes last.",
    )
    days.add_argument("pipeline", help="name of the pipeline, for example flight_delay")
    days.add_argument("first", type=_day, nargs="?", help="first day, YYYY-MM-DD; not needed with --stale or --failed")
    days.add_argument("last", type=_day, nargs="?", help="last day, YYYY-MM-DD, included; not needed with them either")
    days.add_argument("--stale", action="store_true", help="only days that the check days_are_current lists")
    days.add_argument(
        "--failed",
        action="store_true",
        help="only days that have landed and failed, and were not scored since; with --stale these too",
    )
    days.add_argument("--dry-run", action="store_true", help="say which days would be run and why; writes nothing")
    days.set_defaults(run=functools.partial(_backfill, days))


def _add_score(commands: "argparse._SubParsersAction[_Subcommand]") -> None:
    files = commands.add_parser(
        "score",
        help="score files, without a day: local or s3://, CSV or Parquet in and out",
        description="Score files with a pipeline's schema, model and checks, without a day and without Dagster. The "
        "exit code is 0 if the output was written, 1 if something failed, 2 if the command was wrong; but for 0 "
        "nothing is written, and an output that stood there stands.",
    )
    files.add_argument("--pipeline", required=True, help="name of the pipeline, for example flight_delay")
    files.add_argument("--input", required=True, help="a file, or a folder with all data files below it")
    files.add_argument(
        "--output", required=True,
        help="a file that ends in .parquet, .csv or .csv.gz, rejected rows go beside it; or a folder",
    )  # fmt: skip
    files.add_argument("--overwrite", action="store_true", help="replace an output that exists, whole")
    files.add_argument("--wait", action="store_true", help="wait for a process that writes the same output")
    files.add_argument("--json", dest="as_json", action="store_true", help="the summary as JSON")
    files.set_defaults(run=_score)


def _score(options: argparse.Namespace) -> int:
    request = adhoc.Request(options.input, options.output, options.overwrite, options.wait, options.as_json)
    return adhoc.command(find_pipeline(options.pipeline), request, sys.stdout, sys.stderr)


def _backfill(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    missing = [name for name in ("first", "last") if getattr(options, name) is None]
    if missing and not (options.stale or options.failed):
        parser.error(f"the following arguments are required: {', '.join(missing)} (or --stale, --failed)")
    return backfill.backfill(
        options.pipeline, options.first, options.last, sys.stdout,
        stale=options.stale, failed=options.failed, dry_run=options.dry_run,
    )  # fmt: skip


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day; expected YYYY-MM-DD") from None
