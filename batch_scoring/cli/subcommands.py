"""What the command `batch-scoring` can do; the process itself is `cli.py`'s business."""

import argparse
import functools
import os
import sys
from datetime import date
from typing import Any, TextIO

from dagster import DagsterInvariantViolationError

from batch_scoring.cli.backfill import command as backfill
from batch_scoring.cli.remote import commands as remote_commands
from batch_scoring.cli.remote.connection import HEADERS_VARIABLE, URL_VARIABLE, address
from batch_scoring.cli.score import command as adhoc
from batch_scoring.config.loader import find_pipeline
from batch_scoring.defs.assets import retention
from batch_scoring.errors import BatchScoringError
from batch_scoring.operations.alerting import collector
from batch_scoring.runtime.printable import cleaned, guarded


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


def _out() -> TextIO:
    return guarded(sys.stdout)


def _err() -> TextIO:
    return guarded(sys.stderr)


def main(arguments: list[str]) -> int:
    """Run a subcommand; its exit code: 0 all went well, 1 something failed, 2 the command was wrong.

    Those of a remote deployment also: 3 it does not answer, 4 the time for waiting is over. A command that a signal
    ends has 128 and its number: 130 by Ctrl-C, 143 by SIGTERM.
    """
    parser = argparse.ArgumentParser(prog="batch-scoring", description="Score days of a pipeline from a shell.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Subcommand)
    _add_backfill(commands)
    _add_score(commands)
    _add_remote(commands)
    _add_doctor(commands)
    _add_retention(commands)
    channels = commands.add_parser(
        "test-alert",
        help="send a test message to every channel of ALERT_URLS",
        description="Send a test message to every channel of ALERT_URLS; the exit code is 1 if one has not taken it.",
    )
    channels.set_defaults(run=lambda _: collector.try_channels(_out()))
    options = parser.parse_args(arguments)
    try:
        with cleaned():
            code = int(options.run(options))
        sys.stdout.flush()
    except BatchScoringError as error:
        _err().write(f"batch-scoring: {error}\n")
        return error.exit_code
    except DagsterInvariantViolationError as error:  # DAGSTER_HOME is no folder
        _err().write(f"batch-scoring: {error}\n")
        return 2
    except PermissionError as error:
        _err().write(f"batch-scoring: {error}\n")
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


def _backfill(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    missing = [name for name in ("first", "last") if getattr(options, name) is None]
    if missing and not (options.stale or options.failed):
        parser.error(f"the following arguments are required: {', '.join(missing)} (or --stale, --failed)")
    return backfill.backfill(
        options.pipeline,
        options.first,
        options.last,
        _out(),
        stale=options.stale,
        failed=options.failed,
        dry_run=options.dry_run,
    )


def _add_doctor(commands: "argparse._SubParsersAction[_Subcommand]") -> None:
    doctor = commands.add_parser(
        "doctor",
        help="say what is misconfigured, and what to do, before the night does",
        description="Look at specs, storage, tables, models, landing files, AWS, disks, and the Dagster instance with "
        "its daemon and sensors, and say of each fault what to do. Changes nothing. The exit code is 0 if nothing was "
        "found, 1 if something was, 2 if the command was wrong.",
    )
    doctor.add_argument("pipelines", metavar="PIPELINE", nargs="*", help="look at these alone; at all if none is named")
    doctor.add_argument("--json", action="store_true", dest="as_json", help="one JSON object instead of text")
    doctor.add_argument("--send-test", action="store_true", help="send a test message to every channel of ALERT_URLS")
    doctor.add_argument(
        "--fail-on",
        choices=("warning", "error"),
        default="warning",
        help="what makes the exit code 1: errors alone (a night fails), or warnings too (something is lost or unsafe)",
    )
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from batch_scoring.cli.doctor import command  # late: no other command needs it

    return command.doctor(
        options.pipelines, _out(), as_json=options.as_json, send_test=options.send_test, fail_on=options.fail_on
    )


def _add_score(commands: "argparse._SubParsersAction[_Subcommand]") -> None:
    files = commands.add_parser(
        "score",
        help="score files, without a day: local or s3://, CSV or Parquet in and out",
        description="Score files with a pipeline's schema, model and checks, without a day and without Dagster. The "
        "exit code is 0 if the output was written, 1 if something failed, 2 if the command was wrong; nothing is "
        "written then, and an output that stood there stands, unless the message says which file is written.",
    )
    files.add_argument("--pipeline", required=True, help="name of the pipeline, for example flight_delay")
    files.add_argument("--input", required=True, help="a file, or a folder with all data files below it")
    files.add_argument(
        "--output",
        required=True,
        help="a file that ends in .parquet, .csv or .csv.gz, rejected rows go beside it; or a folder",
    )
    files.add_argument("--overwrite", action="store_true", help="replace an output that exists, whole")
    files.add_argument("--wait", action="store_true", help="wait for a process that writes the same output")
    files.add_argument("--json", dest="as_json", action="store_true", help="the summary as JSON")
    files.set_defaults(run=_score)


def _score(options: argparse.Namespace) -> int:
    request = adhoc.Request(options.input, options.output, options.overwrite, options.wait, options.as_json)
    return adhoc.command(find_pipeline(options.pipeline), request, _out(), _err())


def _add_remote(commands: "argparse._SubParsersAction[_Subcommand]") -> None:
    """`submit`, `status` and `wait`, which speak with a deployment elsewhere."""
    codes = "Exit codes: 0 succeeded, 1 failed or canceled, 2 the command is wrong, 3 the deployment does not answer"
    common = _Subcommand(add_help=False)
    common.add_argument("--url", help=f"of the deployment's UI, its path prefix included; else {URL_VARIABLE}")
    common.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help=f"for each request; may be repeated. {HEADERS_VARIABLE} has such lines too, and hides secrets",
    )
    common.add_argument("--json", action="store_true", help="one JSON object instead of text")

    start = commands.add_parser(
        "submit",
        parents=[common],
        help="start a day, or a range of days, of a remote deployment",
        description="Start a day of a remote deployment and print the run's id; a range becomes a backfill with a run "
        f"a day, and its id is printed. {codes}, 4 (with --wait) --timeout ran out.",
    )
    start.add_argument("pipeline", help="name of the pipeline there, for example flight_delay")
    start.add_argument("--day", type=_day, help="the day, YYYY-MM-DD")
    start.add_argument("--from", dest="first", type=_day, help="first day of a range, YYYY-MM-DD")
    start.add_argument("--to", dest="last", type=_day, help="its last day, included")
    start.add_argument("--location", help="code location, where several have the pipeline")
    start.add_argument("--wait", action="store_true", help="go on as `batch-scoring wait`")
    _add_timeout(start)
    start.set_defaults(run=functools.partial(_submit, start))

    look = commands.add_parser(
        "status",
        parents=[common],
        help="say how a run or a backfill of a remote deployment is",
        description="State, rows, failed checks and errors of a run, or of a backfill by days; of a day's newest run "
        f"with --pipeline and --day. {codes}.",
    )
    _add_subject(look)
    look.set_defaults(run=functools.partial(_status, look))

    follow = commands.add_parser(
        "wait",
        parents=[common],
        help="follow a run or a backfill of a remote deployment to its end",
        description="Follow a run, through Dagster's retries, or a backfill to its end; changes are said on stderr, "
        f"the end as `status` says it. {codes}, 4 --timeout ran out.",
    )
    _add_subject(follow)
    _add_timeout(follow)
    follow.set_defaults(run=functools.partial(_wait, follow))


def _add_subject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", help="id of a run or of a backfill; or else:")
    parser.add_argument("--pipeline", help="name of the pipeline there")
    parser.add_argument("--day", type=_day, help="the day whose newest run is meant, YYYY-MM-DD")


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", type=_positive, metavar="SECONDS", help="wait no longer; without end if not given")


def _subject(parser: argparse.ArgumentParser, options: argparse.Namespace) -> remote_commands.Subject:
    given = [value is not None for value in (options.pipeline, options.day)]
    if any(given) if options.id is not None else not all(given):
        parser.error("expected the id of a run or a backfill, or else --pipeline and --day")
    return remote_commands.Subject(options.id, options.pipeline, options.day)


def _submit(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if (options.day is None) == (options.first is None) or (options.first is None) != (options.last is None):
        parser.error("expected --day, or --from and --to")
    if options.timeout is not None and not options.wait:
        parser.error("--timeout is for --wait")
    return remote_commands.submit(
        address(options.url, options.header),
        options.pipeline,
        options.day or options.first,
        options.last,
        _out(),
        _err(),
        location=options.location,
        as_json=options.json,
        waits=options.wait,
        timeout=options.timeout,
    )


def _status(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    subject = _subject(parser, options)
    return remote_commands.status(address(options.url, options.header), subject, _out(), as_json=options.json)


def _wait(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    return remote_commands.wait(
        address(options.url, options.header),
        _subject(parser, options),
        _out(),
        _err(),
        as_json=options.json,
        timeout=options.timeout,
    )


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def _add_retention(commands: "argparse._SubParsersAction[_Subcommand]") -> None:
    old = commands.add_parser(
        "retention",
        help="count what nobody needs any more, or delete it: replaced files, pages, samples, rejected rows, weights",
        description="Count what nobody needs any more, after the days that `retention` in the spec names, and say what "
        "it is; with --delete take it away. What the tables, a run or a reader may still need is never among it.",
    )
    old.add_argument("pipeline", help="name of the pipeline, for example flight_delay")
    old.add_argument("--delete", action="store_true", help="take it away; without it nothing is changed")
    old.add_argument("--json", action="store_true", help="tell in JSON, with every file")
    old.add_argument(
        "--clock-is-right", action="store_true", help="delete although the clock is doubted; compare it first"
    )
    old.set_defaults(
        run=lambda options: retention.clean(
            options.pipeline,
            _out(),
            delete=options.delete,
            as_json=options.json,
            clock_is_right=options.clock_is_right,
        )
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day; expected YYYY-MM-DD") from None
