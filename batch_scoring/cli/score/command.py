"""The subcommand `score`: its options."""

import sys

import click

from batch_scoring.cli.parameters import Subcommand
from batch_scoring.runtime.printable import guarded


@click.command(cls=Subcommand)
@click.option("--pipeline", metavar="NAME", required=True, help="Name of the pipeline, for example flight_delay.")
@click.option(
    "--input",
    metavar="URI",
    required=True,
    help="A file that ends in .parquet, .csv or .jsonl, or a folder with all data files below it.",
)
@click.option(
    "--output",
    metavar="URI",
    required=True,
    help="A file that ends in .parquet, .csv or .csv.gz, rejected rows go beside it; or a folder.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output as a whole.")
@click.option("--wait", is_flag=True, help="Wait for a process that is writing the same output.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def score(pipeline: str, input: str, output: str, *, overwrite: bool, wait: bool, as_json: bool) -> int:
    """Score files with a pipeline's schema, model and checks, without a day and without Dagster.

    The exit code is 0 if the output was written, 1 if something failed, 2 if the command was wrong; in the last two
    cases nothing is written and an existing output is left as it was, unless the message says which file is written.
    """
    from batch_scoring.cli.score import score_files  # late: it brings the engine
    from batch_scoring.config.loader import find_pipeline

    request = score_files.ScoreRequest(input, output, overwrite, wait, as_json)
    return score_files.run(find_pipeline(pipeline), request, guarded(sys.stdout), guarded(sys.stderr))
