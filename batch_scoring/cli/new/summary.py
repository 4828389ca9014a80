"""What the command `new` says: what it found and wrote, and what the person does next."""

from collections.abc import Sequence
from pathlib import Path

from batch_scoring.cli.new import training_sample
from batch_scoring.cli.new.columns import Roles
from batch_scoring.cli.new.sample import MOST_ROWS, Sample
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.monitoring.drift.calibration import LEAST_REFERENCE_DAYS
from batch_scoring.runtime.printable import one_line, shell_word

_NAMES_SHOWN = 5
_NO_NAME = "a column"


def found(sample: Sample, roles: Roles) -> str:
    """Say what is in a sample."""
    rows = len(sample.rows)
    lines = [f"{sample.file.name}: {'the first ' if rows == MOST_ROWS else ''}{rows:,} rows"]
    if sample.unreadable:
        lines.append(f"unreadable   {sample.unreadable:,} rows")
    lines.append(f"key          {roles.key.name}")
    if roles.label:
        lines.append(f"label        {roles.label.name}: {_listed(roles.label.classes) or 'a number'}")
    lines.append(f"features     {len(roles.numeric)} numeric, {len(roles.categorical)} categorical")
    lines += [f"left out     {one_line(name) or _NO_NAME}: {why}" for name, why in roles.left_out]
    return "\n".join(lines) + "\n"


def written(pipeline: Pipeline, sample: Sample, days: Sequence[str], rows: int) -> str:
    """Say what was written."""
    one = f"dt={days[0]} (yesterday: no --day names a column of days)"
    several = f"dt={days[0]} to dt={days[-1]}, {len(days)} days"
    lost = len(sample.rows) - rows
    left = f", {lost:,} have no label or break the schema" if lost else ""
    return (
        f"pipeline     {pipeline.folder}\n"
        f"landed       {pipeline.landing.uri}/{one if len(days) == 1 else several}\n"
        f"to train on  {training_sample.file(pipeline)}: {rows:,} rows{left}\n"
    )


def next_steps(pipeline: Pipeline, days: Sequence[str]) -> str:
    """Say what to do once the sample's last day is scored."""
    is_long = len(days) >= LEAST_REFERENCE_DAYS
    drift = f"- learn the thresholds of drift: batch-scoring calibrate {pipeline.name}\n" if is_long else ""
    others = f"- the other days: batch-scoring backfill {pipeline.name} {days[0]} {days[-2]}\n" if len(days) > 1 else ""
    return (
        "\nnext\n"
        f"{_confirm(pipeline)}{drift}{others}"
        f"- more days: put their files into {pipeline.landing.uri}/dt=YYYY-MM-DD/, then\n"
        f"  batch-scoring backfill {pipeline.name} FIRST LAST\n"
        f"- a better model: change network.py and train.py; docs/guides/new-model-version.md\n"
    )


def repair(pipeline: Pipeline, days: Sequence[str]) -> str:
    """Say what to do if the first model is not trained, or the sample not scored."""
    return (
        "\nthe files are written; correct what the error says, then\n"
        f"  python -m {pipeline.package}.train\n"
        f"  batch-scoring backfill {pipeline.name} {days[-1]} {days[-1]}\n"
    )


def next_with_weights(pipeline: Pipeline, roles: Roles, checkpoint: Path | None) -> str:
    """Say how weights that are trained elsewhere become the pipeline's model."""
    classes = " ".join(map(shell_word, roles.label.classes)) if roles.label else ""
    file = shell_word(str(checkpoint.absolute())) if checkpoint else "FILE"
    return (
        "\nnext\n"
        f"{_confirm(pipeline)}"
        "- put the class of your network into network.py\n"
        f"- batch-scoring checkpoint --pipeline {pipeline.name} --checkpoint {file} \\\n"
        f"    --sample {shell_word(str(training_sample.file(pipeline)))} \\\n"
        f"    --classes {classes or 'CLASS …'} --out {shell_word(pipeline.bundle.uri)}\n"
    )


def _confirm(pipeline: Pipeline) -> str:
    return (
        f"- confirm each line with a comment in {pipeline.folder}/schema.py and pipeline.yaml\n"
        f"- keep the rows out of git: add /data/{pipeline.name}/ to .gitignore\n"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
