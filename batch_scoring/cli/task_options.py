"""Options that say what the outputs of a network mean: the task of its bundle."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from batch_scoring.errors import CheckpointError
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.task import Task

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SEVERAL = ("--classes", "--labels", "--targets", "--quantiles")
"""Options with several values."""

_KINDS = {
    "classes": ("classification", "classes"),
    "labels": ("labels", "labels"),
    "regression": ("regression", None),
    "targets": ("regression", "targets"),
    "quantiles": ("quantiles", "levels"),
    "vector": ("vector", "size"),
}
"""The kind of task that an option chooses, and the field that takes its value."""

_OTHERS = ("logits", "top", "outputs")
"""Options that are fields of a task under the same name."""

_OPTIONS = (
    click.option("--classes", metavar="CLASS...", multiple=True, help="Classes, in the order of the logits."),
    click.option("--labels", metavar="LABEL...", multiple=True, help="Labels, several of which may apply to a row."),
    click.option("--regression", is_flag=True, help="One value."),
    click.option("--targets", metavar="NAME...", multiple=True, help="Values, by name, in the order of the outputs."),
    click.option("--quantiles", metavar="LEVEL...", type=float, multiple=True, help="Quantiles of a value, ascending."),
    click.option("--vector", metavar="SIZE", type=int, help="An embedding of so many numbers."),
    click.option("--logits", type=click.Choice([1]), help="1: the network gives one logit, that of the second class."),
    click.option("--top", metavar="N", type=int, help="How many of the likeliest classes become columns."),
    click.option(
        "--outputs",
        type=click.Choice(["logits", "probabilities"]),
        help="probabilities: the network ends in its own softmax or sigmoid.",
    ),
)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def task_options(command: _Command) -> _Command:
    """Give a command the options of a task."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def task_of(options: dict[str, Any]) -> Head:
    """The task that the values of `task_options` describe.

    Raises:
        click.UsageError: they name no kind of task, or more than one.
        CheckpointError: they do not fit together.
    """
    chosen = [name for name in _KINDS if options[name]]
    if len(chosen) != 1:
        names = ", ".join(f"--{name}" for name in chosen or _KINDS)
        raise click.UsageError(f"{names}: expected one of them, which says what the network's outputs mean")
    kind, field = _KINDS[chosen[0]]
    fields = {name: options[name] for name in _OTHERS if options[name] is not None}
    if field:
        fields[field] = options[chosen[0]]
    try:
        task: Head = TypeAdapter(Task).validate_python({"kind": kind, **fields})
    except ValidationError as error:
        reasons = "; ".join(_reason(each) for each in error.errors())
        raise CheckpointError(f"--{chosen[0]}: {reasons}") from error
    return task


def _reason(error: "ErrorDetails") -> str:
    if error["type"] == "extra_forbidden":
        return f"--{error['loc'][-1]} does not apply to it"
    return error["msg"].removeprefix("Value error, ")
