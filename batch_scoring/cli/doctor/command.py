"""The subcommand `doctor`: its arguments and options."""

import sys
from collections.abc import Sequence
from typing import Literal

import click

from batch_scoring.cli.parameters import Subcommand
from batch_scoring.runtime.printable import guarded


@click.command(cls=Subcommand)
@click.argument("pipelines", metavar="[PIPELINE]...", nargs=-1, help="Check only these; all if none is named.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.option("--send-test", is_flag=True, help="Send a test message to every channel of ALERT_URLS.")
@click.option(
    "--fail-on",
    type=click.Choice(["warning", "error"]),
    default="warning",
    help="What makes the exit code 1: only errors (runs fail), or warnings too (something is lost or unsafe), "
    "which is the default.",
)
def doctor(pipelines: Sequence[str], *, as_json: bool, send_test: bool, fail_on: Literal["warning", "error"]) -> int:
    """Check a deployment, and report what to do about each problem.

    It examines specs, storage, tables, models, landing files, AWS, disks, and the Dagster instance with its daemon and
    sensors. It changes nothing. The exit code is 0 if nothing was found, 1 if something was, 2 if the command was
    wrong.
    """
    from batch_scoring.cli.doctor import all_probes  # late: it brings Dagster

    return all_probes.doctor(pipelines, guarded(sys.stdout), as_json=as_json, send_test=send_test, fail_on=fail_on)
