"""The subcommand `metrics`: its arguments and options."""

import errno
import sys
from pathlib import Path

import click

from batch_scoring.cli.parameters import Subcommand
from batch_scoring.runtime.printable import guarded


@click.command(cls=Subcommand)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve the metrics to Prometheus at /metrics on this port, by convention 9464.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 for every one, as in a pod."
)
@click.option(
    "--textfile",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Replace a file with the metrics every minute, for node_exporter's textfile collector (*.prom).",
)
@click.option(
    "--cloudwatch", "namespace", metavar="NAMESPACE", default="", help="Send to CloudWatch every five minutes."
)
@click.option("--once", is_flag=True, help="Read the metrics once and end: print them, or write and send them.")
@click.pass_context
def metrics(
    context: click.Context, *, port: int | None, host: str, file: Path | None, namespace: str, once: bool
) -> int:
    """Tell a monitoring system how the days of all pipelines stand, as the state says.

    Every scrape reads the state, so the metrics also show runs that died and a daemon that is gone. Nothing is written
    to the deployment. What cannot be read is said on stderr and by the metric state_readable.
    """
    try:
        from batch_scoring.cli.metrics import run  # late: it brings Dagster
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        context.fail("prometheus-client is not installed; install it: pip install -c constraints.txt -e '.[metrics]'")
    if file is not None and not file.name:  # as of --textfile "$UNSET"
        context.fail("--textfile: expected the path of a file")
    out, errors = guarded(sys.stdout), guarded(sys.stderr)
    if once:
        if port is not None:
            context.fail("--once ends after one reading, --port serves until it is ended; give one of them")
        return run.once(file, namespace, out, errors)
    if port is None and not file and not namespace:
        context.fail("expected where the metrics go: --port, --textfile, --cloudwatch, or --once to print them")
    try:
        run.serve(host, port, file, namespace, out, errors)
    except OSError as error:
        advice = "; end what listens there, or choose another --port" if error.errno == errno.EADDRINUSE else ""
        context.fail(f"{host} port {port}: {error.strerror or error}{advice}")
