"""Weights that were stored in 16 bits: exactly the same numbers in 32.

The engine computes in float32, so they are widened where the network's class has float32. Every half is a float32, so
nothing is lost but what was lost when they were stored, and that is recorded.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def widened(
    found: Mapping[str, "torch.Tensor"], own: Mapping[str, "torch.Tensor"]
) -> tuple[dict[str, "torch.Tensor"], str]:
    """Widen the halves among some weights.

    Args:
        found: weights by name.
        own: those of the network's class.

    Returns:
        The weights, and the types that they were stored in, such as `bfloat16`; empty if nothing was widened.
    """
    import torch

    halves = {
        name
        for name, values in found.items()
        if values.dtype in (torch.float16, torch.bfloat16) and name in own and own[name].dtype is torch.float32
    }
    stored = sorted({str(found[name].dtype).removeprefix("torch.") for name in halves})
    return {name: values.float() if name in halves else values for name, values in found.items()}, ", ".join(stored)
