"""Check that a network's outputs are what the bundle says: logits, or probabilities.

Scoring applies the softmax or sigmoid to logits, and would apply it to probabilities again.
"""

import contextlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance import eager
from batch_scoring.inference.acceptance.eager import Inputs
from batch_scoring.inference.inputs import parameters
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

VARIES = 1e-2
"""Least range of an output, relative to that sum, for a constant sum to say anything."""


def check_outputs_are_logits(network: "torch.nn.Module", manifest: Manifest, rows: Inputs, outputs: np.ndarray) -> None:
    """Check the outputs of all rows, and the operator that they come from.

    Logits may well lie between 0 and 1 in every row, but they do not add up to 1 in every row, nor to any other number.
    Where values are inconclusive, the operator decides: a sigmoid at the end.

    Args:
        network: in eager torch.
        manifest: nothing is checked unless the network is to give logits.
        rows: a few rows to trace through the network.
        outputs: float32[rows, classes] of all rows.

    Raises:
        UnsoundError: they are probabilities.
    """
    if manifest.task.gives != "logits":
        return
    finite = outputs[np.isfinite(outputs).all(axis=1)]
    if not len(finite) or finite.min() < -NEARLY:
        return
    found = ""
    sums = finite.sum(axis=1, dtype=np.float64)
    whole = float(np.median(sums))
    varies = np.ptp(finite, axis=0).max() > VARIES * whole  # nearly constant outputs have nearly constant sums anyway
    if whole > NEARLY and (np.abs(sums - whole) < NEARLY * whole).all() and varies:
        found = f"lie between 0 and {whole:.4g} and add up to {whole:.4g} in all of {len(finite)} rows"
    elif finite.max() > 1 + NEARLY:
        return
    elif last := _last_activation(network, rows):
        found = f"come from a {last} at the end of the network"
    if found:
        raise UnsoundError(
            f"the network's outputs are probabilities already: they {found}. Scoring takes the softmax of logits, so "
            "no probability would be the network's. Return the logits: leave the last softmax or sigmoid out "
            "of forward(); or say outputs: probabilities (of one probability p of two classes, with logits: 1)"
        )


def check_outputs_are_probabilities(manifest: Manifest, outputs: np.ndarray) -> None:
    """Check the outputs of all rows where the network is to give probabilities; see `check_outputs_are_logits`.

    Raises:
        UnsoundError: one is not between 0 and 1, or a row's do not add up to 1 though its classes exclude each other.
    """
    if manifest.task.gives != "probabilities":
        return
    beyond = np.flatnonzero(((outputs < 0) | (outputs > 1)).any(axis=1))
    sums = outputs.sum(axis=1, dtype=np.float64)
    apart = np.flatnonzero(np.abs(sums - 1) > NEARLY) if manifest.task.is_exclusive and outputs.shape[1] > 1 else beyond
    if len(beyond) or len(apart):
        row = int((beyond if len(beyond) else apart)[0])
        what = "lie between 0 and 1" if len(beyond) else f"add up to 1, but to {sums[row]:.4g}"
        shown = ", ".join(f"{value:.9g}" for value in outputs[row, :5]) + ", …" * (outputs.shape[1] > 5)
        raise UnsoundError(
            f"outputs is probabilities, but the network's outputs do not {what}: row {row} has {shown}. Say outputs: "
            "logits, unless the network ends in a softmax or sigmoid"
        )


def _last_activation(network: "torch.nn.Module", rows: Inputs) -> str:
    """The name of the last operator that bounded the outputs; empty if there is none, or it cannot be traced."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    names = parameters.order(network.forward, rows.names, rows.filled)
    _, block = next(rows.blocks())
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
        return made.get(id(network(*(torch.from_numpy(block[name]) for name in names))), "")
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
