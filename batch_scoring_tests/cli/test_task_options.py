"""The options of a task become its head, or a line that says what does not fit."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from batch_scoring.cli.task_options import task_of, task_options
from batch_scoring.errors import CheckpointError
from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.labels import Labels
from batch_scoring.inference.heads.quantiles import Quantiles
from batch_scoring.inference.heads.regression import Regression
from batch_scoring.inference.heads.vector import Vector


def task(*arguments: str) -> Head:
    """The task of a command with these arguments."""

    @click.command()
    @task_options
    def command(**options: Any) -> None:  # noqa: ANN401
        found.append(task_of(options))

    found: list[Head] = []
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception:
        raise result.exception
    return found[0]


A, B = ("--classes", "a"), ("--classes", "b")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((*A, *B), Classification(classes=("a", "b"))),
        ((*A, *B, "--logits", "1"), Classification(classes=("a", "b"), logits=1)),
        ((*A, *B, "--top", "0"), Classification(classes=("a", "b"), top=0)),
        ((*A, *B, "--outputs", "probabilities"), Classification(classes=("a", "b"), outputs="probabilities")),
        (("--labels", "a", "--outputs", "logits"), Labels(labels=("a",))),
        (("--regression",), Regression()),
        (("--targets", "price", "--targets", "area"), Regression(targets=("price", "area"))),
        (("--quantiles", "0.1", "--quantiles", "0.9"), Quantiles(levels=(0.1, 0.9))),
        (("--vector", "3"), Vector(size=3)),
    ],
)
def test_options_become_a_head(arguments: tuple[str, ...], expected: Head) -> None:
    assert task(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--classes, --labels, --regression, --targets, --quantiles, --vector: expected one of them"),
        ((*A, "--regression"), "--classes, --regression: expected one of them"),
    ],
)
def test_one_kind_is_to_be_named(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(click.UsageError) as raised:
        task(*arguments)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (A, "--classes: classes are ['a']; a classification has at least two"),
        ((*A, *A), "--classes: 'a' occurs twice"),
        (("--targets", "a", "--logits", "1"), "--targets: --logits does not apply to it"),
        (("--vector", "3", "--top", "1"), "--vector: --top does not apply to it"),
        (("--quantiles", "0.9", "--quantiles", "0.1"), "--quantiles: levels are [0.9, 0.1]; expected ascending ones"),
    ],
)
def test_what_does_not_fit_together_is_said(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        task(*arguments)
    assert says in str(raised.value) and "\n" not in str(raised.value)
