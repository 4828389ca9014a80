"""The subcommand `new`: its options."""

import sys
from pathlib import Path

import click

from batch_scoring.cli.parameters import Subcommand
from batch_scoring.runtime.printable import guarded

_FILE = click.Path(path_type=Path)


@click.command(cls=Subcommand)
@click.argument("name", help="Name of the pipeline: lower-case letters, digits and _.")
@click.option(
    "--sample",
    "file",
    metavar="FILE",
    type=_FILE,
    required=True,
    help="A file of the table as it will land (.csv, .jsonl, .parquet …), with the label beside the features.",
)
@click.option("--key", metavar="COLUMN", help="Column that identifies a row; needed if several do.")
@click.option("--label", metavar="COLUMN", help="Column to predict: a few classes, or a number.")
@click.option("--day", metavar="COLUMN", help="Column with each row's day; without one, the sample is yesterday's.")
@click.option(
    "--checkpoint", metavar="FILE", type=_FILE, help="Weights that are trained already: no training script is written."
)
def new(name: str, *, file: Path, key: str | None, label: str | None, day: str | None, checkpoint: Path | None) -> int:
    """Write a pipeline from a sample of its table, train its first model, and score the sample.

    The folder batch_scoring/pipelines/NAME gets a schema with the types and ranges of the sample, a spec, a network and
    its training script, with a comment on each line that you should confirm. The sample lands as a day of the pipeline.
    The exit code is 2 if no pipeline can be made of the sample; nothing is written then.
    """
    from batch_scoring.cli.new.create import Request, create  # late: it brings the engine

    return create(Request(name, file, key, label, day, checkpoint), guarded(sys.stdout).write)
