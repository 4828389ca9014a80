"""A network is given what its parameters name, and nothing by guess."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.inputs.parameters import TABULAR, order

TEXT = (*TABULAR, "tokens")


def forward_of(signature: str) -> Callable[..., Any]:
    """A network's method with a signature."""
    space: dict[str, Any] = {}
    exec(f"class Net:\n    def forward(self, {signature}): ...", space)
    return space["Net"]().forward


@pytest.mark.parametrize(
    ("signature", "inputs", "filled", "expected"),
    [
        ("numeric, categorical", TABULAR, ["numeric", "categorical"], ("numeric", "categorical")),
        ("categorical, numeric", TABULAR, ["numeric", "categorical"], ("categorical", "numeric")),
        ("numeric, categorical", TABULAR, ["numeric"], ("numeric", "categorical")),
        ("numeric", TABULAR, ["numeric"], ("numeric",)),
        ("numeric, categorical=None", TABULAR, ["numeric"], ("numeric", "categorical")),
        ("x, c", TABULAR, ["numeric", "categorical"], TABULAR),
        ("numeric, _", TABULAR, ["numeric"], TABULAR),
        ("x, c, mask=None", TABULAR, ["numeric"], TABULAR),
        ("*inputs", TABULAR, ["numeric"], TABULAR),
        ("x", TABULAR, ["numeric"], ("numeric",)),
        ("x", TABULAR, ["categorical"], ("categorical",)),
        ("x, mask=None", TEXT, ["tokens"], ("tokens",)),
        ("x, mask=None", TABULAR, ["numeric"], ("numeric",)),
        ("x, c=None", TABULAR, ["numeric", "categorical"], TABULAR),
        ("tokens, numeric", TEXT, ["numeric", "tokens"], ("tokens", "numeric")),
        ("tokens", TEXT, ["tokens"], ("tokens",)),
        ("input_ids", TEXT, ["tokens"], ("tokens",)),
        ("tokens, *, scale=1.0", TEXT, ["tokens"], ("tokens",)),
    ],
)
def test_the_inputs_of_parameters(
    signature: str, inputs: tuple[str, ...], filled: list[str], expected: tuple[str, ...]
) -> None:
    assert order(forward_of(signature), inputs, filled) == expected


@pytest.mark.parametrize(
    ("signature", "inputs", "filled", "message"),
    [
        ("tokens, mask", TEXT, ["tokens"], r"forward\(tokens, mask\) of the network: nothing fills mask; the model's"),
        ("numeric", TABULAR, ["numeric", "categorical"], "does not take categorical"),
        ("x", TEXT, ["numeric", "tokens"], "nothing fills x"),
        ("*inputs", TEXT, ["tokens"], "does not take tokens"),
        ("scale=1.0, tokens=None", TEXT, ["tokens"], "parameters with a default stand before"),
        ("", TABULAR, ["numeric"], "does not take numeric"),
        ("*, tokens", TEXT, ["tokens"], r"takes tokens by keyword only; .+: leave the \* out"),
    ],
)
def test_what_cannot_be_filled_is_said(
    signature: str, inputs: tuple[str, ...], filled: list[str], message: str
) -> None:
    with pytest.raises(UnsoundError, match=message):
        order(forward_of(signature), inputs, filled)


def test_a_compiled_module_takes_numbers_and_categories_as_ever() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return x + c

    assert order(torch.jit.script(Net()).forward, TABULAR, ["numeric"]) == TABULAR
