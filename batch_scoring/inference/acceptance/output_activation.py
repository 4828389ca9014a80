"""Check that a network's outputs are logits: scoring applies the softmax, and would apply it to probabilities again."""

import contextlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance import eager
from batch_scoring.inference.acceptance.eager import Inputs
from batch_scoring.inference.manifest import Manifest

if TYPE_CHECKING:
    import torch

BOUNDED = re.compile("_?softmax|_safe_softmax|sigmoid_?|special_expit|hardsigmoid_?")
"""Operators of torch with values between 0 and 1. log_softmax is not among them: its softmax gives the same."""

PRESERVING = re.compile(
    "view|view_as|reshape|_unsafe_view|_reshape_alias|squeeze|unsqueeze|transpose|t|permute|flatten|unflatten|alias|"
    "contiguous|clone|to|_to_copy|detach|select|slice|narrow|expand|cat|stack|where|clamp|clamp_min|clamp_max|"
    "nan_to_num|masked_fill|dropout|split|split_with_sizes|chunk|unbind|flip|roll|index|index_select|gather|round|rsub"
)
"""Operators that preserve the values, exactly or nearly, or turn p into 1 - p."""

NEARLY = 1e-4
"""Relative tolerance for the sum of float32 probabilities."""


def check_outputs_are_logits(network: "torch.nn.Module", manifest: Manifest, rows: Inputs, outputs: np.ndarray) -> None:
    """Check the outputs of all rows, and the operator that they come from.

    Logits may well lie between 0 and 1 in every row, but they do not add up to 1 in every row, nor to any other number.
    Where values are inconclusive, the operator decides: a sigmoid at the end.

    Args:
        network: in eager torch.
        manifest: nothing is checked unless it is a classification.
        rows: a few rows to trace through the network.
        outputs: float32[rows, classes] of all rows.

    Raises:
        UnsoundError: they are probabilities.
    """
    if manifest.task != "classification":
        return
    finite = outputs[np.isfinite(outputs).all(axis=1)]
    if not len(finite) or finite.min() < -NEARLY:
        return
    found = ""
    sums = finite.sum(axis=1, dtype=np.float64)
    whole = float(np.median(sums))
    if whole > NEARLY and (np.abs(sums - whole) < NEARLY * whole).all() and np.ptp(finite, axis=0).any():
        found = f"lie between 0 and {whole:.4g} and add up to {whole:.4g} in all of {len(finite)} rows"
    elif finite.max() > 1 + NEARLY:
        return
    elif last := _last_activation(network, rows):
        found = f"come from a {last} at the end of the network"
    if found:
        raise UnsoundError(
            f"the network's outputs are probabilities already: they {found}. Scoring takes the softmax of logits, so "
            "no probability would be the network's. Return the logits: leave the last softmax or sigmoid out "
            "of forward() (a probability p alone becomes torch.stack([torch.zeros_like(z), z], dim=1) of its logit z)"
        )


def _last_activation(network: "torch.nn.Module", rows: Inputs) -> str:
    """The name of the last operator that bounded the outputs; empty if there is none, or it cannot be traced."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    made: dict[int, str] = {}
    alive: list[Any] = []  # so that no id is reused

    class Traced(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
            result = func(*args, **(kwargs or {}))
            name = func.overloadpacket.__name__
            by = name.strip("_") if BOUNDED.fullmatch(name) else ""
            if PRESERVING.fullmatch(name):
                by = next(filter(None, (made.get(id(value)) for value in _flat([*args, *(kwargs or {}).values()]))), "")
            for value in _flat([result]):
                made[id(value)] = by
                alive.append(value)
            return result

    # a network that cannot be traced is examined by its values alone
    with contextlib.suppress(Exception), eager.one_thread(), torch.inference_mode(), Traced():  # type: ignore[no-untyped-call]  # torch's
        return made.get(id(network(*eager.tensors(network, rows))), "")
    return ""


def _flat(values: Any) -> list[Any]:  # noqa: ANN401
    """Tensors in nested lists and tuples."""
    import torch

    return [
        inner
        for value in values
        for inner in (_flat(value) if isinstance(value, list | tuple) else [value])
        if isinstance(inner, torch.Tensor)
    ]
