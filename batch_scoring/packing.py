"""Linear layers with their weights packed for the CPU.

oneDNN multiplies by weights in a layout of its own, and takes a ReLU behind a layer into the same pass. torch packs
them so when it compiles a network; the operators by which it does are private, so torch is pinned in pyproject.toml,
and where they are missing a network stays as it is. A row's outputs are other than eager's in the last bit, and the
same in every batch on the grid; a bundle's golden rows are scored this way too, so a build of torch that computes
something else is refused like one that computes anything else differently.
"""

import copy
import itertools
from typing import TypeGuard

import torch
from torch import nn
from torch.nn import functional

_BATCH_ROWS = 8_192
"""Rows that the layout is chosen for."""


def packed(network: nn.Module) -> nn.Module:
    """The network with packed layers; it shares all else with the one that is given, which stays as it is."""
    try:
        torch.ops.mkldnn._linear_pointwise, torch.ops.mkldnn._reorder_linear_weight  # noqa: B018  (are they there)
        return _packed(network, {})
    except (AttributeError, RuntimeError):  # another processor, or a build without oneDNN
        return network


class PackedLinear(nn.Linear):
    """A linear layer for inference, with what follows it: none or relu."""

    def __init__(self, layer: nn.Linear, then: str = "none") -> None:
        with torch.device("meta"):
            super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        self.weight, self.bias, self._then = layer.weight, layer.bias, then
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _BATCH_ROWS)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """float32[…, out_features] of float32[…, in_features]."""
        if not values.numel():
            return functional.linear(values, self.weight, self.bias)
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(values, self._packed, self.bias, self._then, [], "")
        return result


def _packed(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """A copy of a module whose layers below it are packed; a module that stands in two places stays one."""
    if module in done:
        return done[module]
    done[module] = mine = copy.copy(module)
    children = {name: child for name, child in module._modules.items() if child is not None}
    mine._modules = dict(module._modules)
    fused = _fused(children) if type(module) is nn.Sequential else {}
    for name, child in children.items():
        if _is_plain(child):
            mine._modules[name] = PackedLinear(child, "relu" if name in fused else "none")
        elif name in fused.values():
            mine._modules[name] = nn.Identity()
        else:
            mine._modules[name] = _packed(child, done)
    return mine


def _fused(children: dict[str, nn.Module]) -> dict[str, str]:
    """Names of the layers of a sequence that a ReLU follows, each with the ReLU's name."""
    return {
        name: after
        for (name, child), (after, following) in itertools.pairwise(children.items())
        if _is_plain(child) and type(following) is nn.ReLU and not _has_hooks(following)
    }


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is a linear layer of float32 that nobody has changed."""
    return (
        type(module) is nn.Linear
        and module.weight.dtype is torch.float32
        and module.weight.device.type == "cpu"
        and not _has_hooks(module)
    )


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
