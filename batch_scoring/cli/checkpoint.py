"""The subcommand `checkpoint`: convert a file of weights into a model bundle."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from batch_scoring.cli.parameters import Subcommand
from batch_scoring.cli.sample_file import read_outputs, read_sample
from batch_scoring.cli.task_options import SEVERAL, task_of, task_options
from batch_scoring.config.loader import declared_pipeline
from batch_scoring.errors import BatchScoringError, CheckpointError, UnsoundError
from batch_scoring.inference.bundle import LARGEST_TOKENIZER, MANIFEST, read_version
from batch_scoring.inference.checkpoints.convert import convert
from batch_scoring.inference.inputs.fitted import Fitted
from batch_scoring.inference.inputs.fitted import load as load_fitted
from batch_scoring.runtime.printable import guarded
from batch_scoring.storage.folders.addresses import open_folder

_FILE = click.Path(path_type=Path)
_EXISTING_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_EXISTING_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)

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


class _JsonObject(click.ParamType[dict[str, Any]]):
    """A JSON object, or the name of a file with one."""

    name = "JSON|FILE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """See `click.ParamType`."""
        try:
            found = json.loads(value if value.lstrip().startswith("{") else Path(value).read_bytes())
        except OSError as error:
            self.fail(f"{value!r} is neither a JSON object nor a file: {error.strerror}", param, ctx)
        except (ValueError, RecursionError) as error:
            self.fail(f"{value!r} is not JSON: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"{value!r} holds a {type(found).__name__}; expected a JSON object", param, ctx)
        return found


class _Vocabularies(_JsonObject):
    """The words of categorical features, in the order of their codes."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, list[str]]:
        """See `click.ParamType`."""
        found = super().convert(value, param, ctx)
        for column, words in found.items():
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                self.fail(f'{value!r}: {column} is not a list of texts; expected {{"{column}": ["…", …]}}', param, ctx)
        return found


class _SeveralValues(Subcommand):
    """Accepts `--classes a b` for `--classes a --classes b`."""

    def in_full(self, ctx: click.Context, arguments: list[str]) -> list[str]:
        """The arguments with an option before each of its values."""
        return list(_repeated(super().in_full(ctx, arguments), (*SEVERAL, "--metric")))


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
@click.option(
    "--checkpoint",
    "file",
    metavar="FILE",
    type=_FILE,
    required=True,
    help="The weights: a file of torch.save, safetensors, or a .pt2 of torch.export.save.",
)
@click.option(
    "--sample",
    metavar="FILE",
    type=_FILE,
    required=True,
    help="Parquet, CSV or JSON Lines: key, dt and features of the training window.",
)
@task_options
@click.option(
    "--arguments",
    metavar="JSON|FILE",
    type=_JsonObject(),
    help="Keyword arguments of the network's class, unless the checkpoint has input_dim, hidden_dim and output_dim.",
)
@click.option(
    "--vocabulary",
    "vocabularies",
    metavar="JSON|FILE",
    type=_Vocabularies(),
    help="The words of each categorical feature, in the order of their codes from 1.",
)
@click.option("--tokenizer", metavar="FILE", type=_EXISTING_FILE, help="The tokenizer.json of the text features.")
@click.option(
    "--text",
    metavar="JSON|FILE",
    type=_JsonObject(),
    help="What the tokenizer does not say: longest, padding, unknown, exact.",
)
@click.option(
    "--fitted",
    metavar="FOLDER",
    type=_EXISTING_FOLDER,
    help="What the features' transform has learned: fitted.json, fitted.safetensors, fitted.NAME.parquet.",
)
@click.option("--version", metavar="NAME", help="The version's name, unless the checkpoint has one.")
@click.option("--entry", metavar="NAME", help="The checkpoint's entry that holds the weights, if several do.")
@click.option("--prefix", metavar="PREFIX", help="What stands before the names of the weights, if several fit.")
@click.option("--metric", "metrics", type=_Metric(), metavar="NAME=VALUE...", multiple=True, help="Honest figures.")
@click.option(
    "--expected",
    metavar="FILE",
    type=_FILE,
    help="Parquet or CSV: the key (and dt, if a key occurs on several days) with the training code's own outputs for "
    "some rows of the sample: output_0 … (logits) or prob_class_0 … (probabilities, of two classes one is enough). A "
    "bundle with different outputs is rejected.",
)
@click.option("--out", "folder", metavar="FOLDER", type=_FILE, required=True, help="The new bundle's folder.")
def checkpoint(
    pipeline: str,
    *,
    file: Path,
    sample: Path,
    arguments: dict[str, Any] | None,
    vocabularies: dict[str, list[str]] | None,
    tokenizer: Path | None,
    text: dict[str, Any] | None,
    fitted: Path | None,
    version: str | None,
    entry: str | None,
    prefix: str | None,
    metrics: tuple[tuple[str, float], ...],
    expected: Path | None,
    folder: Path,
    **task: Any,  # noqa: ANN401  (the values of task_options)
) -> int:
    """Convert a checkpoint into a model bundle. No code in it is run.

    The exit code is 1 if the checkpoint or its sample cannot become a bundle.
    """
    notes: list[str] = []
    try:
        _check_unused(folder)
        declared = declared_pipeline(pipeline)
        outputs = read_outputs(expected, declared) if expected else None
        sha256 = convert(
            file,
            pipeline=declared,
            sample=read_sample(sample, declared, notes.append),
            task=task_of(task),
            folder=folder,
            arguments=arguments,
            version=version,
            vocabularies=vocabularies,
            tokenizer=_read_tokenizer(tokenizer) if tokenizer else None,
            text=text,
            fitted=_read_fitted(fitted) if fitted else None,
            entry=entry,
            prefix=prefix,
            metrics=dict(metrics),
            expected=outputs,
            note=notes.append,
        )
    except OSError as error:
        return _refuse(f"{folder} cannot be written: {error}")
    except BatchScoringError as error:  # 1 whatever it is: the command was right
        return _refuse(str(error))
    written = read_version(open_folder(str(folder)))
    if written != folder.absolute().name:
        guarded(sys.stderr).write(
            f"batch-scoring: the folder is {folder.absolute().name}, the version {written}: scored rows will say "
            f"{written}\n"
        )
    compared = f"{outputs.num_rows:,} rows compared with {expected}, all agree" if outputs else _NOT_COMPARED
    guarded(sys.stdout).write("".join(f"{line}\n" for line in (f"{folder}: sha256 {sha256}", *notes, compared)))
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


def _read_tokenizer(file: Path) -> bytes:
    if file.stat().st_size > LARGEST_TOKENIZER:
        raise CheckpointError(f"{file} has {file.stat().st_size:,} bytes; expected a tokenizer.json of a few megabytes")
    return file.read_bytes()


def _read_fitted(folder: Path) -> Fitted:
    files = {file.name: file.read_bytes() for file in sorted(folder.glob("fitted.*"))}
    if not files:
        raise CheckpointError(f"{folder} has no fitted.json, fitted.safetensors or fitted.NAME.parquet")
    try:
        return load_fitted(files)
    except UnsoundError as error:
        raise CheckpointError(f"{folder}: {error}") from error
