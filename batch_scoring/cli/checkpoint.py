"""The subcommand `checkpoint`: convert a plain checkpoint into a model bundle."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click
import pyarrow as pa

from batch_scoring.cli.parameters import Subcommand
from batch_scoring.config.loader import declared_pipeline
from batch_scoring.errors import BatchScoringError, CheckpointError
from batch_scoring.inference.bundle import MANIFEST, read_version
from batch_scoring.inference.checkpoints.convert import convert
from batch_scoring.runtime.printable import guarded
from batch_scoring.storage import parquet
from batch_scoring.storage.folders.addresses import open_folder

_FILE = click.Path(path_type=Path)
_NOT_COMPARED = "not compared with the training code's own outputs: no --expected"


class _Metric(click.ParamType[tuple[str, float]]):
    """A metric: a name and a number."""

    name = "NAME=VALUE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """See `click.ParamType`."""
        name, _, number = value.partition("=")
        try:
            return name, float(number)
        except ValueError:
            self.fail(f"{value!r} is not NAME=VALUE with a number", param, ctx)


class _SeveralValues(Subcommand):
    """Accepts `--classes a b` for `--classes a --classes b`."""

    def in_full(self, ctx: click.Context, arguments: list[str]) -> list[str]:
        """The arguments with an option before each of its values."""
        return list(_repeated(super().in_full(ctx, arguments), ("--classes", "--metric")))


def _repeated(arguments: Iterable[str], names: Sequence[str]) -> Iterator[str]:
    name = ""
    for argument in arguments:
        if argument in names:
            name = argument
        elif argument.startswith("--") or argument == "-h":
            name = ""
            yield argument
        else:
            yield f"{name}={argument}" if name else argument


@click.command(cls=_SeveralValues)
@click.option("--pipeline", metavar="NAME", required=True, help="The pipeline that the model is for.")
@click.option("--checkpoint", "file", metavar="FILE", type=_FILE, required=True, help="The file that torch.save wrote.")
@click.option(
    "--sample",
    metavar="FILE",
    type=_FILE,
    required=True,
    help="Parquet: key, dt and features of the training window.",
)
@click.option(
    "--classes",
    metavar="CLASS...",
    multiple=True,
    required=True,
    help="Meaning of each class, in the order of the logits.",
)
@click.option("--metric", "metrics", type=_Metric(), metavar="NAME=VALUE...", multiple=True, help="Honest figures.")
@click.option(
    "--expected",
    metavar="FILE",
    type=_FILE,
    help="Parquet: the key (and dt, if a key occurs on several days) with the training code's own outputs for some "
    "rows of the sample: output_0 … (logits) or prob_class_0 … (probabilities, of two classes one is enough). A "
    "bundle with different outputs is rejected.",
)
@click.option("--out", "folder", metavar="FOLDER", type=_FILE, required=True, help="The new bundle's folder.")
def checkpoint(
    pipeline: str,
    *,
    file: Path,
    sample: Path,
    classes: tuple[str, ...],
    metrics: tuple[tuple[str, float], ...],
    expected: Path | None,
    folder: Path,
) -> int:
    """Convert a plain checkpoint into a model bundle.

    The exit code is 1 if the checkpoint or its sample cannot become a bundle.
    """
    try:
        _check_unused(folder)
        outputs = _read_table(expected) if expected else None
        sha256 = convert(
            file,
            pipeline=declared_pipeline(pipeline),
            sample=_read_table(sample),
            classes=list(classes),
            folder=folder,
            metrics=dict(metrics),
            expected=outputs,
        )
    except OSError as error:
        return _refuse(f"{folder} cannot be written: {error}")
    except BatchScoringError as error:  # 1 whatever it is: the command was right
        return _refuse(str(error))
    version = read_version(open_folder(str(folder)))
    if version != folder.absolute().name:
        guarded(sys.stderr).write(
            f"batch-scoring: the folder is {folder.absolute().name}, the version {version}: scored rows will say "
            f"{version}\n"
        )
    compared = f"{outputs.num_rows:,} rows compared with {expected}, all agree" if outputs else _NOT_COMPARED
    guarded(sys.stdout).write(f"{folder}: sha256 {sha256}\n{compared}\n")
    return 0


def _refuse(reason: str) -> int:
    guarded(sys.stderr).write(f"batch-scoring: {reason}\n")
    return 1


def _check_unused(folder: Path) -> None:
    if (folder / MANIFEST).exists():
        raise CheckpointError(
            f"{folder} holds a bundle already; a delivered version is never replaced: give the new model "
            "a version and a folder of its own, then change model.bundle in the spec"
        )


def _read_table(file: Path) -> pa.Table:
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; expected a Parquet file")
    try:
        with file.open("rb") as stream:
            return parquet.open_file(stream).read()
    except (OSError, pa.ArrowException) as error:
        raise CheckpointError(f"{file} is not a readable Parquet file: {error}") from error
