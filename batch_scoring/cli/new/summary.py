"""What the command `new` says: what it found and wrote, and what the person does next."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from batch_scoring.cli.new import training_sample
from batch_scoring.cli.new.columns import Label, Roles
from batch_scoring.cli.new.sample import MOST_ROWS, Sample
from batch_scoring.cli.new.weights import Weights
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.runtime.printable import one_line, shell_word

_NAMES_SHOWN = 5
_NO_NAME = "a column"
_OWN_END = "  add --outputs probabilities if the network ends in a sigmoid or softmax of its own\n"
_OF_ONE_LOGIT = 2
"""Number of classes that one logit tells apart."""


def found(sample: Sample, roles: Roles) -> str:
    """Say what is in a sample."""
    rows = len(sample.rows)
    lines = [f"{sample.file.name}: {'the first ' if rows == MOST_ROWS else ''}{rows:,} rows"]
    if sample.unreadable:
        lines.append(f"unreadable   {sample.unreadable:,} rows, the first: {one_line(sample.why_unreadable)}")
    lines.append(f"key          {roles.key.name}")
    if roles.label:
        lines.append(f"label        {roles.label.name}: {_listed(roles.label.classes) or 'a number'}")
    lines.append(f"features     {_counts(roles)}")
    lines += [f"left out     {one_line(name) or _NO_NAME}: {why}" for name, why in roles.left_out]
    return "\n".join(lines) + "\n"


def _counts(roles: Roles) -> str:
    """How many features there are of each kind."""
    rare = [(len(roles.text), "text"), (len(roles.vectors), "of vectors")]
    found = [(len(roles.numeric), "numeric"), (len(roles.categorical), "categorical")]
    return ", ".join(f"{count} {kind}" for count, kind in found + [each for each in rare if each[0]])


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
    others = f"- the other days: batch-scoring backfill {pipeline.name} {days[0]} {days[-2]}\n" if len(days) > 1 else ""
    return (
        "\nnext\n"
        f"{_confirm(pipeline)}{others}"
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


def next_with_weights(
    pipeline: Pipeline, roles: Roles, weights: Weights | None, vocabulary: Path | None, days: Sequence[str]
) -> str:
    """Say how weights that are trained elsewhere become the pipeline's model."""
    options = " \\\n    ".join(_options(pipeline, roles, weights, vocabulary))
    order = f"- confirm the order of the words in {vocabulary}: their codes are 1, 2, …\n" if vocabulary else ""
    return (
        "\nnext\n"
        f"{_confirm(pipeline)}"
        f"- put the class of your network into {pipeline.folder}/network.py, in place of Network\n"
        f"{order}"
        f"- batch-scoring checkpoint --pipeline {pipeline.name} \\\n    {options}\n"
        f"{_hints(roles.label, weights)}"
        f"- batch-scoring backfill {pipeline.name} {days[0]} {days[-1]}\n"
    )


def _options(pipeline: Pipeline, roles: Roles, weights: Weights | None, vocabulary: Path | None) -> Iterator[str]:
    """Yield the options of the command `checkpoint` that the sample and the file tell."""
    yield f"--checkpoint {shell_word(str(weights.file)) if weights else 'FILE'}"
    yield f"--sample {shell_word(str(training_sample.file(pipeline)))}"
    if weights and weights.needs_arguments:
        yield f"--arguments {shell_word(json.dumps(dict(weights.arguments)))}"
    if weights and weights.others:
        yield f"--entry {shell_word(weights.entry)}"
    if vocabulary:
        yield f"--vocabulary {shell_word(str(vocabulary))}"
    if roles.text:
        yield "--tokenizer TOKENIZER.json"
    yield _task(roles.label, weights)
    folder = Path(pipeline.bundle.uri)
    version = "" if weights and weights.version else f"--version {folder.name} "
    yield f"{version}--out {shell_word(str(folder))}"


def _task(label: Label | None, weights: Weights | None) -> str:
    """Say what the outputs of the network are."""
    if label is None:
        return "--classes CLASS …"
    if not label.classes:
        return "--regression"
    is_one = weights is not None and weights.outputs == 1 and len(label.classes) == _OF_ONE_LOGIT
    return f"--classes {' '.join(map(shell_word, label.classes))}{' --logits 1' * is_one}"


def _hints(label: Label | None, weights: Weights | None) -> str:
    """Say what no file tells."""
    known, unknown = "leave out of --arguments what the class", """add --arguments '{"NAME": VALUE}' if the class"""
    return (
        f"  {f'{known} does not take' if weights and weights.arguments else f'{unknown} takes any'}\n"
        f"{'' if label and not label.classes else _OWN_END}"
        "  add --expected FILE with scores of your own code, and they are compared: docs/guides/models.md\n"
    )


def _confirm(pipeline: Pipeline) -> str:
    return (
        f"- confirm each line with a comment in {pipeline.folder}/schema.py and pipeline.yaml\n"
        f"- keep the rows out of git: add /data/{pipeline.name}/ to .gitignore\n"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
