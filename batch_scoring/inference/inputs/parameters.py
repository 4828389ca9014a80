"""Which of a model's inputs each parameter of its network's `forward` takes.

A parameter takes the input of its name: `forward(self, tokens, numeric)`. Networks from elsewhere use other names: the
two parameters of one that has numbers and categories take these, in this order, and a single parameter takes the only
input that the model has.
"""

import inspect
from collections.abc import Callable, Collection
from typing import Any

from batch_scoring.errors import UnsoundError

TABULAR = ("numeric", "categorical")
"""The inputs of a table, which every model without an encoder of its own has, though they may have no columns."""


def order(forward: Callable[..., Any], inputs: Collection[str], filled: Collection[str]) -> tuple[str, ...]:
    """The inputs in the order in which to call a network.

    Args:
        forward: the network's method.
        inputs: names of the inputs that the model has.
        filled: those of them that have columns.

    Raises:
        UnsoundError: a parameter takes none of them, or an input that has columns goes to no parameter.
    """
    try:
        parameters = [*inspect.signature(forward).parameters.values()]
    except (TypeError, ValueError):  # a method without a signature, of a compiled module
        return TABULAR
    named = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if any(each.kind is each.VAR_POSITIONAL for each in parameters) and not named and set(filled) <= set(TABULAR):
        return TABULAR
    required = [each.name for each in named if each.default is each.empty]
    taken = tuple(each.name for each in named if each.name in inputs)
    if set(required) <= set(taken) and set(filled) <= set(taken) and _is_beginning(taken, named):
        return taken
    only = next(iter(filled)) if len(filled) == 1 and not taken else ""
    if only and len(required) == 1:  # forward(x, mask=None): what is optional is no input
        return (only,)
    if len(named) >= len(TABULAR) >= len(required) and set(inputs) == set(TABULAR):
        return TABULAR
    if only and not required and named:
        return (only,)
    if by_name := [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty]:
        raise UnsoundError(
            f"forward of the network takes {', '.join(by_name)} by keyword only; inputs are passed by position, as "
            "hooks expect them: leave the * out"
        )
    raise UnsoundError(_refusal([each.name for each in named], required, inputs, filled))


def _is_beginning(taken: tuple[str, ...], named: list[inspect.Parameter]) -> bool:
    """Whether no parameter is left out before one that is taken: they are passed by position, as hooks expect them."""
    return taken == tuple(each.name for each in named[: len(taken)])


def _refusal(named: list[str], required: list[str], inputs: Collection[str], filled: Collection[str]) -> str:
    head = f"forward({', '.join(named)}) of the network"
    there = f"the model's inputs are {', '.join(inputs)}"
    if strange := [name for name in required if name not in inputs]:
        return f"{head}: nothing fills {', '.join(strange)}; {there}: name the parameters after them"
    if left := [name for name in filled if name not in named]:
        return f"{head} does not take {', '.join(left)}; {there}: add the parameter, or leave the columns out"
    return f"{head}: parameters with a default stand before {', '.join(inputs)}; put those first"
