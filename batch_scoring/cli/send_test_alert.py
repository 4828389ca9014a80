"""The subcommand `test-alert`."""

import sys

import click

from batch_scoring.cli.parameters import Subcommand
from batch_scoring.operations.alerting import collector
from batch_scoring.runtime.printable import guarded


@click.command("test-alert", cls=Subcommand)
@click.option("--variable", default="ALERT_URLS", help="Environment variable that holds the channels.", metavar="NAME")
def test_alert(variable: str) -> int:
    """Send a test message to every channel of ALERT_URLS, or of another variable.

    The exit code is 1 if a channel did not accept it.
    """
    return collector.try_channels(guarded(sys.stdout), variable)
