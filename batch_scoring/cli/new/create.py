"""A new pipeline: its folder, the sample in its landing folder, a first model, and the sample's scores.

sample -> schema.py, pipeline.yaml, network.py, train.py -> landing/dt=… -> training/sample.parquet -> bundle -> scores
"""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from keyword import iskeyword
from pathlib import Path

from batch_scoring.cli.new import columns, landing, pipeline_files, sample, summary, training_sample, weights
from batch_scoring.cli.new.columns import Roles
from batch_scoring.cli.new.sample import Sample
from batch_scoring.cli.new.weights import Weights
from batch_scoring.config import loader
from batch_scoring.config.loader import declared_pipeline
from batch_scoring.config.pipeline import locate
from batch_scoring.errors import SampleError

FEWEST_ROWS = 200
"""Number of labelled rows below which no model is trained: 64 of them prove the bundle, a fifth is held out."""

Say = Callable[[str], object]


@dataclass(frozen=True)
class Request:
    """What the command was asked for."""

    name: str
    file: Path
    key: str | None = None
    label: str | None = None
    day: str | None = None
    checkpoint: Path | None = None


def create(request: Request, say: Say) -> int:
    """Write a pipeline, and run it on its sample; 0, or the exit code of what failed.

    Raises:
        SampleError: no pipeline can be made of this; nothing is written then.
    """
    folder = loader.PIPELINES / request.name
    _check_name(request.name, folder)
    found = sample.read(request.file)
    roles = columns.tell(found, request.key, request.label, request.day)
    days = landing.days_of(found, request.day, _yesterday())
    _check_rows(found, roles)
    trained = weights.read(request.checkpoint) if request.checkpoint else None
    with _created(folder):
        _write(folder, request.name, roles, found, min(days), trained)
        pipeline = declared_pipeline(request.name)
        landing.land(pipeline, found, days)
        rows = training_sample.write(pipeline, found, roles, sorted(days))
    say(summary.found(found, roles))
    say(summary.written(pipeline, found, sorted(days), rows))
    if roles.label is None or trained:
        vocabulary = training_sample.write_vocabularies(pipeline, roles)
        say(summary.next_with_weights(pipeline, roles, trained, vocabulary, sorted(days)))
        return 0
    code = _run(f"batch_scoring.pipelines.{request.name}.train", [], say)
    code = code or _run("batch_scoring", ["backfill", request.name, max(days), max(days)], say)
    say(summary.next_steps(pipeline, sorted(days)) if not code else summary.repair(pipeline, sorted(days)))
    return code


def _check_name(name: str, folder: Path) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", name) or iskeyword(name):
        raise SampleError(
            f"{name!r} is not a pipeline's name; expected at most 40 lower-case letters, digits and _, a letter first, "
            "and no word of Python"
        )
    if folder.exists():
        raise SampleError(f"{folder} exists; choose another name, or remove it")
    root = loader.data_root()
    data = locate(name, root)
    if not data.is_local:
        raise SampleError(f"BATCH_SCORING_DATA is {root}; expected a local folder, in which the first model is trained")
    if Path(data.uri).exists():
        raise SampleError(f"{data.uri} exists; choose another name, or remove it")


def _check_rows(found: Sample, roles: Roles) -> None:
    rows = len(found.rows)
    labelled = rows - found.rows[roles.label.name].null_count if roles.label else rows
    if labelled < FEWEST_ROWS:
        what = "rows with a label" if roles.label else "rows"
        raise SampleError(f"{found.file} has {labelled} {what}; expected at least {FEWEST_ROWS}")


def _yesterday() -> str:
    return str(datetime.now(UTC).date() - timedelta(days=1))


@contextlib.contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Remove what was written for the pipeline if something fails: its name is free again."""
    folder.mkdir()
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        shutil.rmtree(locate(folder.name, loader.data_root()).uri, ignore_errors=True)
        raise


def _write(folder: Path, name: str, roles: Roles, found: Sample, first: str, trained: Weights | None) -> None:
    """Write the pipeline's files."""
    network = pipeline_files.network_of(name, roles, trained) if trained else pipeline_files.network(name, roles)
    files = {
        "__init__.py": f'"""The pipeline {name}."""\n',
        "schema.py": pipeline_files.schema(name, roles, found),
        "pipeline.yaml": pipeline_files.spec(name, roles, found, first),
        "network.py": network,
    }
    if roles.label and not trained:
        files["train.py"] = pipeline_files.training(name, roles.label, roles)
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")


def _run(module: str, arguments: list[str], say: Say) -> int:
    """Run a command of the project as a person would, with its own output."""
    command = " ".join(["batch-scoring" if module == "batch_scoring" else f"python -m {module}", *arguments])
    say(f"\n$ {command}\n")
    sys.stdout.flush()
    return subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
