"""The subcommands `submit`, `status` and `wait`: their arguments and options."""

import sys
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, TypeVar

import click

from batch_scoring.cli.parameters import DAY, SECONDS, Subcommand
from batch_scoring.cli.remote.connection import HEADERS_VARIABLE, URL_VARIABLE, address
from batch_scoring.runtime.printable import guarded

Function = TypeVar("Function", bound=Callable[..., Any])

_CODES = "Exit codes: 0 succeeded, 1 failed or canceled, 2 the command was wrong, 3 the deployment does not answer"
_URL = click.option(
    "--url", metavar="URL", help=f"The deployment's UI, including its path prefix; {URL_VARIABLE} if not given."
)
_HEADER = click.option(
    "--header",
    "headers",
    metavar="'NAME: VALUE'",
    multiple=True,
    help=f"Header of each request; may be repeated. {HEADERS_VARIABLE} takes such lines too, and hides secrets.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
_TIMEOUT = click.option("--timeout", type=SECONDS, help="Stop waiting after this time; no limit if not given.")


def _subject(function: Function) -> Function:
    """Add the arguments that select a run or a backfill."""
    for option in (
        click.option("--day", type=DAY, help="The day whose newest run is selected."),
        click.option("--pipeline", metavar="NAME", help="Name of the pipeline there."),
        click.argument("id", required=False, help="Id of a run or a backfill; otherwise pass --pipeline and --day."),
    ):
        function = option(function)
    return function


@click.command(
    cls=Subcommand,
    help="Start a day of a remote deployment and print the run's id. A range of days becomes a backfill with one run "
    f"per day, whose id is printed.\n\n{_CODES}, 4 (with --wait) --timeout is over.",
)
@click.argument("pipeline", help="Name of the pipeline there, for example flight_delay.")
@click.option("--day", type=DAY, help="The day.")
@click.option("--from", "first", type=DAY, help="First day of a range.")
@click.option("--to", "last", type=DAY, help="Last day of the range, included.")
@click.option("--location", metavar="NAME", help="Code location, if several have the pipeline.")
@click.option("--wait", "waits", is_flag=True, help="Then follow it as `batch-scoring wait` does.")
@_TIMEOUT
@_URL
@_HEADER
@_JSON
@click.pass_context
def submit(
    context: click.Context,
    pipeline: str,
    *,
    day: date | None,
    first: date | None,
    last: date | None,
    location: str | None,
    waits: bool,
    timeout: float | None,
    url: str | None,
    headers: Sequence[str],
    as_json: bool,
) -> int:
    """Start a day, or a backfill of a range."""
    start = day or first
    if start is None or (day is None) == (first is None) or (first is None) != (last is None):
        context.fail("expected --day, or --from and --to")
    if timeout is not None and not waits:
        context.fail("--timeout is for --wait")
    from batch_scoring.cli.remote import actions  # late: it brings Dagster

    return actions.submit(
        address(url, headers),
        pipeline,
        start,
        last,
        guarded(sys.stdout),
        guarded(sys.stderr),
        location=location,
        as_json=as_json,
        waits=waits,
        timeout=timeout,
    )


@click.command(
    cls=Subcommand,
    help="Show the state, rows, failed checks and errors of a run, or of a backfill by days. With --pipeline and "
    f"--day: of the day's newest run.\n\n{_CODES}.",
)
@_subject
@_URL
@_HEADER
@_JSON
@click.pass_context
def status(
    context: click.Context,
    id: str | None,
    *,
    pipeline: str | None,
    day: date | None,
    url: str | None,
    headers: Sequence[str],
    as_json: bool,
) -> int:
    """Show a run or a backfill."""
    _check_subject(context, id, pipeline, day)
    from batch_scoring.cli.remote import actions  # late: it brings Dagster

    subject = actions.Subject(id, pipeline, day)
    return actions.status(address(url, headers), subject, guarded(sys.stdout), as_json=as_json)


@click.command(
    cls=Subcommand,
    help="Follow a run, through Dagster's retries, or a backfill to its end. Changes are printed on stderr, the end "
    f"as `status` shows it.\n\n{_CODES}, 4 --timeout is over.",
)
@_subject
@_TIMEOUT
@_URL
@_HEADER
@_JSON
@click.pass_context
def wait(
    context: click.Context,
    id: str | None,
    *,
    pipeline: str | None,
    day: date | None,
    timeout: float | None,
    url: str | None,
    headers: Sequence[str],
    as_json: bool,
) -> int:
    """Follow a run or a backfill to its end."""
    _check_subject(context, id, pipeline, day)
    from batch_scoring.cli.remote import actions  # late: it brings Dagster

    subject = actions.Subject(id, pipeline, day)
    out, err = guarded(sys.stdout), guarded(sys.stderr)
    return actions.wait(address(url, headers), subject, out, err, as_json=as_json, timeout=timeout)


def _check_subject(context: click.Context, id: str | None, pipeline: str | None, day: date | None) -> None:
    given = [value is not None for value in (pipeline, day)]
    if any(given) if id is not None else not all(given):
        context.fail("expected the id of a run or a backfill, or else --pipeline and --day")
